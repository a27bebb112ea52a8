"""What identifies a person in a clinical text, found by rules: spans and their kind, never their words.

The kinds follow the Safe Harbor method of HIPAA, 45 CFR 164.514(b)(2)(i), as far as rules can: names, parts of dates
other than the year, ages over 89, telephone and fax numbers, e-mail and web addresses, IP addresses, postal addresses,
record, account, insurance, licence and device numbers. Rules find what has a form or a label. A bare surname, a rare
given name, a place or a profession has neither: a person must review.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from medvlm.data_recipes.deidentification.protected import Span, mark_spans, measurement_spans, without
from medvlm.data_recipes.deidentification.text_patterns import GIVEN, MONTH_ALONE, NAMES, PATIENT_GIVEN, PATTERNS, Kind
from medvlm.data_recipes.deidentification.words import EPONYM_TAIL, GIVEN_NAMES, NO_NAMES

__all__ = ["Identifier", "Kind", "find_identifiers", "united"]

_WORDS = re.compile(r"[^\W\d_][\w'’.-]*")
_SURE = ("record_number", "id_number", "phone", "email", "url", "date", "ip_address", "age_over_89")
"""Kinds whose form or label is proof enough: a measurement inside them is none."""

_DIGITS = ("date", "record_number", "id_number", "ip_address", "phone", "age_over_89")


@dataclass(frozen=True, kw_only=True)
class Identifier:
    """``text[start:end]`` identifies a person, or may."""

    kind: Kind
    start: int
    end: int


def find_identifiers(text: str) -> tuple[Identifier, ...]:
    """Identifiers in ``text``, sorted, none overlapping another; measurements, levels, scores and marks stay out.

    Years alone and times are no identifiers. "XXXX", "___", "[** ... **]" and "[NAME]" are marks that another
    de-identification left.
    """
    marks = mark_spans(text)
    kept = (*marks, *measurement_spans(text))
    found: list[Identifier] = []
    digits = any(letter.isdigit() for letter in text)
    for kind, pattern in PATTERNS:
        if not digits and kind in _DIGITS and pattern.pattern != MONTH_ALONE:
            continue  # most sentences of reports hold no number, and looking for one is slow
        if kind == "email" and "@" not in text:
            continue
        for match in pattern.finditer(text):
            spared = marks if kind in _SURE else kept
            found += _pieces(text, kind, match.span("x"), spared, found)
    for start, end in _names(text):
        found += _pieces(text, "name", (start, end), kept, found)
    return tuple(sorted(found, key=lambda one: one.start))


def united(text: str, found: Iterable[Identifier], more: Iterable[Identifier]) -> tuple[Identifier, ...]:
    """``found`` and what ``more`` (a language model, a list of names) adds; measurements and marks stay out."""
    together = list(found)
    kept = (*mark_spans(text), *measurement_spans(text))
    for one in more:
        together += _pieces(text, one.kind, (one.start, one.end), kept, together)
    return tuple(sorted(together, key=lambda one: one.start))


def _pieces(text: str, kind: Kind, span: Span, spared: Iterable[Span], found: Iterable[Identifier]) -> list[Identifier]:
    taken = (*spared, *((one.start, one.end) for one in found))
    pieces = []
    for start, end in without(span, taken):
        piece = text[start:end]
        start += len(piece) - len(piece.lstrip(" \t\r\n,;:."))
        end -= len(piece) - len(piece.rstrip(" \t\r\n,;:"))
        if any(letter.isalnum() for letter in text[start:end]):
            pieces.append(Identifier(kind=kind, start=start, end=end))
    return pieces


def _names(text: str) -> Iterator[Span]:
    """Names, cut where the first word stands that is no name ("Dr. Smith Chest")."""
    for pattern in NAMES:
        for match in pattern.finditer(text):
            span = _cut(text, match.span("x"))
            if span is not None and not _is_eponym(text, span):
                yield span
    for pattern in GIVEN:
        for match in _overlapping(pattern, text):
            given, rest = match["given"].lower(), match["rest"]
            plain = [word.strip(".").lower() for word in rest.split()]
            if given in GIVEN_NAMES and not NO_NAMES.intersection(plain) and not _is_eponym(text, match.span()):
                yield match.span()
    for match in PATIENT_GIVEN.finditer(text):
        if match["x"].lower() in GIVEN_NAMES:
            yield match.span("x")


def _overlapping(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Matches that may begin inside another: "Patient Jane" must not take "Jane" away from "Jane Doe"."""
    position = 0
    while (match := pattern.search(text, position)) is not None:
        yield match
        position = min(match.end("given"), match.end("rest"))


def _cut(text: str, span: Span) -> Span | None:
    start, end = span
    for word in _WORDS.finditer(text, start, end):
        plain = word.group().strip(".'’-").lower()
        if plain in NO_NAMES and len(plain) > 1:
            end = word.start()
            break
        if text[word.end() : word.end() + 2].lstrip(" ").startswith(":"):
            end = word.start()  # the label of the next field
            break
    kept = text[start:end].rstrip(" \t\r\n,;:")
    letters = sum(letter.isalpha() for letter in kept)
    return (start, start + len(kept)) if letters >= 2 else None


def _is_eponym(text: str, span: Span) -> bool:
    words = text[span[0] : span[1]].split()
    following = re.match(r"(?:['’]s)?[\s-]+([A-Za-z]+)", text[span[1] :])
    tail = following.group(1).lower() if following else ""
    return tail in EPONYM_TAIL or (bool(words) and words[-1].lower() in EPONYM_TAIL)
