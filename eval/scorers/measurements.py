"""Numbers with a unit and counts of findings in a report, and which of two reports agree."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from medvlm.eval.scorers.labeller import Statement, label_sentence
from medvlm.eval.scorers.report_sentences import sentences

RELATIVE_TOLERANCE = 0.1
ABSOLUTE_TOLERANCE = {"mm": 1.0, "ml": 1.0, "HU": 5.0, "%": 1.0, "degrees": 1.0, "count": 0.0}
"""Two numbers agree when they differ by no more than a tenth of the reference, or by this; counts only when equal."""

_UNITS = {
    "mm": ("mm", 1.0), "millimeter": ("mm", 1.0), "millimetre": ("mm", 1.0), "cm": ("mm", 10.0),
    "centimeter": ("mm", 10.0), "centimetre": ("mm", 10.0), "ml": ("ml", 1.0), "cc": ("ml", 1.0),
    "milliliter": ("ml", 1.0), "millilitre": ("ml", 1.0), "l": ("ml", 1000.0), "liter": ("ml", 1000.0),
    "litre": ("ml", 1000.0), "hu": ("HU", 1.0), "hounsfield unit": ("HU", 1.0), "%": ("%", 1.0),
    "percent": ("%", 1.0), "degree": ("degrees", 1.0), "°": ("degrees", 1.0),
}  # fmt: skip
_NUMBER = r"\d+(?:[.,]\d+)*"
_MEASURED = re.compile(
    rf"(?<![\w.,])(?P<numbers>-?{_NUMBER}(?:\s*(?:x|×|by|to|-|–)\s*{_NUMBER})*)[\s-]*"
    r"(?P<unit>mm|millimet(?:er|re)s?|cm|centimet(?:er|re)s?|ml|cc|millilit(?:er|re)s?|l|lit(?:er|re)s?|hu|"
    r"hounsfield units?|%|percent|degrees?|°)(?![\w])"
)
_EARLIER = re.compile(r"\b(?:previously|prior|formerly|was|were|compared (?:to|with)|from|versus|vs)\b[^,;]{0,20}$")
_WORDS = {word: n for n, word in enumerate("two three four five six seven eight nine ten".split(), start=2)}  # noqa: SIM905
_COUNT = re.compile(rf"(?:^|[\s(])(?P<count>\d{{1,2}}|{'|'.join(_WORDS)})(?P<between>(?: [a-z-]+){{0,3}}) $")
_UNIT_WORD = re.compile(r"\b(?:mm|cm|ml|cc|x|by|to)\b")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number.

    Attributes:
        value: in ``unit``: mm, ml, HU, %, degrees, or count (of findings).
        finding: it belongs to (of CheXpert, else its kind); "" where none is named.
        earlier: whether it is of an earlier study.
    """

    value: float
    unit: str
    finding: str
    earlier: bool


def measurements(report: str) -> list[Measurement]:
    """Every number with a unit, and every count of a named finding, in reading order."""
    found: list[Measurement] = []
    for sentence in sentences(report):
        stated = label_sentence(sentence)
        for match in _MEASURED.finditer(sentence):
            unit, factor = _UNITS[match["unit"].rstrip("s") if match["unit"] != "s" else "s"]
            name = _belongs_to(stated, match.start())
            earlier = _EARLIER.search(sentence[: match.start()]) is not None
            for number in re.findall(rf"^-{_NUMBER}|{_NUMBER}", match["numbers"]):
                found.append(Measurement(value=_read(number) * factor, unit=unit, finding=name, earlier=earlier))
        found += [count for one in stated if (count := _count(one)) is not None]
    return found


def _read(number: str) -> float:
    """ "3,5" is three and a half, "1,200" is one thousand two hundred."""
    if re.fullmatch(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?", number):
        return float(number.replace(",", ""))
    return (
        float(number.replace(",", ".", 1))
        if number.count(",") + number.count(".") == 1
        else float(re.sub(r"[.,](?=.*[.,])", "", number).replace(",", "."))
    )


def _belongs_to(stated: Sequence[Statement], place: int) -> str:
    near = [one for one in stated if one.first <= place < one.last]
    nearest = min(near, key=lambda one: min(abs(one.start - place), abs(place - one.end)), default=None)
    return "" if nearest is None else nearest.finding or nearest.kind


def _count(one: Statement) -> Measurement | None:
    name = one.sentence[one.start : one.end]
    match = _COUNT.search(one.sentence[one.first : one.start])
    if match is None or one.present is not True or not re.search(r"(?:[^s]s|sses|ies)$", name):
        return None
    if _UNIT_WORD.search(match["between"]):
        return None
    value = _WORDS.get(match["count"]) or int(match["count"])
    return Measurement(value=float(value), unit="count", finding=one.finding or one.kind, earlier=False)


def agree(written: Measurement, reference: Measurement) -> bool:
    """Whether two numbers are about the same thing and within the tolerance of the reference."""
    if (written.unit, written.earlier) != (reference.unit, reference.earlier):
        return False
    if written.finding and reference.finding and written.finding != reference.finding:
        return False
    slack = ABSOLUTE_TOLERANCE[reference.unit]
    if reference.unit != "count":
        slack = max(slack, RELATIVE_TOLERANCE * abs(reference.value))
    return abs(written.value - reference.value) <= slack + 1e-9


def matched(written: Sequence[Measurement], reference: Sequence[Measurement]) -> int:
    """The most pairs that agree, each number in one pair at most (maximum bipartite matching, by augmenting paths)."""
    partner: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column, one in enumerate(reference):
            if column in tried or not agree(written[row], one):
                continue
            tried.add(column)
            if column not in partner or place(partner[column], tried):
                partner[column] = row
                return True
        return False

    return sum(place(row, set()) for row in range(len(written)))
