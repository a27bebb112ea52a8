"""What de-identification must leave alone: measurements, levels, scores, and the marks that others left."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NUMBER = r"\d+(?:[.,]\d+)?"
_UNIT = (
    r"(?:mm|cm|dm|km|m|µm|um|nm|ml|mL|cc|dl|dL|L|mg|g|kg|mcg|µg|mmol|mol|mEq|IU|HU|SUV|Gy|mGy|cGy|mSv|kV|kVp|keV|MeV|"
    r"mA|mAs|Hz|kHz|MHz|mmHg|bpm|ms|msec|sec|min|hrs?|T|Tesla|MBq|mCi|lbs?|inch|inches|ft|French|Fr|F|G|"
    r"gauge|years?[- ]history|days?|weeks?|wks?|months?|hours?|minutes?|seconds?)"
)
_DATE_AHEAD = r"(?!\d{1,4}[./-]\d{1,2}[./-]\d{2,4}(?!\d)(?!\s*(?:mm|cm|ml)\b))"
_PATTERNS = (
    # 3.2 cm, 12 x 14 mm, 1.2-1.4 x 3 cm, 5-6 days, 2 to 3 mm, 8 mm x 9 mm
    rf"(?<!\d[./-])(?<![\w.]){_DATE_AHEAD}{_NUMBER}(?:\s*{_UNIT})?(?:\s*(?:[x×*]|by|to|and|-|–|/)\s*{_NUMBER}(?:\s*{_UNIT})?){{0,3}}"
    rf"\s*-?(?:{_UNIT}(?:\s?(?:[23²³]|/\s?(?:min|s|h|dl|dL|l|L|ml|mL|kg|g|mm)))?(?![\w])|%|°)",
    r"(?<![\w.])\d+(?:[.,]\d+)?\s*[x×]\s*\d+(?:[.,]\d+)?(?:\s*[x×]\s*\d+(?:[.,]\d+)?)?(?![\w])",  # 256 x 256
    # C5-6, L4/5, L5/S1, T12
    r"(?<![\w-])(?:C[1-8]|T(?:1[0-2]|[1-9])|L[1-6]|S[1-5])"
    r"(?:\s?[-/–]\s?(?:C?[1-8]|T?(?:1[0-2]|[1-9])|L?[1-6]|S?[1-5]))?(?![\w])",
    r"\bT[12]\*?(?:[-/](?:FLAIR|STIR|FS|T[12]))?(?![\w])",
    r"(?i)\b(?:BI|LI|PI|TI|O|C|CAD|VI|NI|Lung)[- ]?RADS\b(?:\s*(?:category|score)?\s*:?\s*[0-6][A-CX]?)?",
    r"(?i)\b(?:gleason|aspects|bosniak|gcs|nihss|fazekas|agatston|grade|stage|type|category|class|score|zone)\s*:?\s*"
    r"\d+(?:\s*[+/]\s*\d+)?[a-d]?\b",
    r"(?<![\d/.])(?:\d|10)\s?/\s?10\b(?![/.]?\d)",  # 10/10 pain, 5/10
    r"(?<![\d/.])\d{2,3}\s?/\s?\d{2,3}(?=\s*mm\s?Hg)",
    r"(?<![\d/.])(?:[6-9]\d|1\d\d|2[0-5]\d)\s?/\s?\d{2,3}(?![/.\d])",  # 120/80: no month, no day is above 31
    r"(?i)\b(?:series|se|image|images|im|img|slice|slices|frame|frames|level|view)\s*#?\s*:?\s*\d+(?:\s*[-/–]\s*\d+)?\b",
)  # fmt: skip
_MEASUREMENTS = tuple(re.compile(pattern) for pattern in _PATTERNS)

_MARKS = re.compile(
    r"\[\*\*.*?\*\*\]"  # MIMIC-III
    r"|_{2,}"  # MIMIC-IV, MIMIC-CXR
    r"|\b[Xx]{3,}\b"  # Open-i
    r"|\[[A-Z][A-Z0-9> _-]{1,30}\]"  # [NAME], [DATE]: ours
    r"|<[A-Z][A-Z_ ]{1,30}>",
    re.DOTALL,
)

Span = tuple[int, int]


def measurement_spans(text: str) -> tuple[Span, ...]:
    """(start, end) of what is measured or counted, merged: "3.2 cm", "12 x 14 mm", "L4/5", "BI-RADS 4", "120/80"."""
    return merged(match.span() for pattern in _MEASUREMENTS for match in pattern.finditer(text))


def mark_spans(text: str) -> tuple[Span, ...]:
    """(start, end) of de-identification marks: "XXXX", "___", "[** ... **]", "[NAME]"."""
    return tuple(match.span() for match in _MARKS.finditer(text))


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same characters in sorted spans of which none touch."""
    found: list[list[int]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1][1] = max(found[-1][1], end)
        else:
            found.append([start, end])
    return tuple((start, end) for start, end in found)


def without(span: Span, taken: Iterable[Span]) -> tuple[Span, ...]:
    """What is left of ``span`` when the characters of ``taken`` are cut out."""
    left = [span]
    for start, end in taken:
        left = [
            piece
            for low, high in left
            for piece in ((low, min(high, start)), (max(low, end), high))
            if piece[0] < piece[1]
        ]
    return tuple(sorted(set(left)))
