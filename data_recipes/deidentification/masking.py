"""Replace the identifiers of a text by marks of their kind, or dates by shifted ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from typing import Literal

from medvlm.data_recipes.deidentification.options import Tally
from medvlm.data_recipes.deidentification.protected import Span
from medvlm.data_recipes.deidentification.text import Identifier, find_identifiers, united
from medvlm.data_recipes.deidentification.words import MONTHS, NO_NAMES

MARKS: dict[str, str] = {
    "name": "[NAME]", "date": "[DATE]", "record_number": "[RECORD NUMBER]", "phone": "[PHONE]", "email": "[EMAIL]",
    "address": "[ADDRESS]", "url": "[URL]", "id_number": "[ID NUMBER]", "ip_address": "[IP ADDRESS]",
    "age_over_89": "[OVER 89]",
}  # fmt: skip

Finder = Callable[[str], Iterable[Identifier]]
"""What may add identifiers to those of the rules: a language model, a list of known names."""


def mask(
    text: str,
    *,
    more: Iterable[Finder] = (),
    days: int | None = None,
    date_order: Literal["mdy", "dmy"] | None = None,
    tally: Tally | None = None,
) -> tuple[str, tuple[Span, ...]]:
    """``text`` without identifiers, and where in it something was put in their place.

    Measurements and the marks of an earlier de-identification stay, whatever ``more`` says.

    Args:
        more: further finders; what they find is added to the rules'.
        days: shift whole dates by so many days and write them as 2019-03-14; None masks them. A date without day,
            month or year, and an ambiguous one without ``date_order``, are masked.
        tally: counts kinds, when given.
    """
    found = find_identifiers(text)
    for finder in more:
        found = united(text, found, finder(text))
    pieces: list[str] = []
    written: list[Span] = []
    length = at = 0
    for one in found:
        kept = text[at : one.start]
        word = MARKS[one.kind]
        if one.kind == "date" and days is not None:
            word = shifted(text[one.start : one.end], days, date_order) or word
        pieces += [kept, word]
        written.append((length + len(kept), length + len(kept) + len(word)))
        length += len(kept) + len(word)
        at = one.end
        if tally is not None:
            tally.removed[one.kind] += 1
    return "".join([*pieces, text[at:]]), tuple(written)


def left_over(text: str, written: Iterable[Span] = ()) -> tuple[Identifier, ...]:
    """Identifiers in a masked text outside what ``mask`` has written: what it missed."""
    spans = tuple(written)
    return tuple(
        one for one in find_identifiers(text) if not any(start < one.end and one.start < end for start, end in spans)
    )


_MONTH_NUMBERS: dict[str, int] = {}
for _stem, _number in (
    ("jan", 1), ("jän", 1), ("gen", 1), ("ene", 1), ("feb", 2), ("fév", 2), ("fev", 2), ("mar", 3), ("mär", 3),
    ("mae", 3), ("mrz", 3), ("apr", 4), ("avr", 4), ("abr", 4), ("may", 5), ("mai", 5), ("mag", 5), ("jun", 6),
    ("juin", 6), ("giu", 6), ("jul", 7), ("juil", 7), ("lug", 7), ("aug", 8), ("aoû", 8), ("aou", 8), ("ago", 8),
    ("sep", 9), ("set", 9), ("oct", 10), ("okt", 10), ("out", 10), ("ott", 10), ("nov", 11), ("dec", 12), ("dez", 12),
    ("déc", 12), ("dic", 12),
):  # fmt: skip
    for _month in MONTHS:
        if _month.startswith(_stem):
            _MONTH_NUMBERS[_month] = _number


def shifted(words: str, days: int, date_order: Literal["mdy", "dmy"] | None) -> str | None:
    """The date ``words``, moved by ``days``, in ISO form; None when it is not whole or its order is not known."""
    found = _parse(words.lower(), date_order)
    if found is None:
        return None
    try:
        return (date(*found) + timedelta(days=days)).isoformat()
    except (ValueError, OverflowError):
        return None


def _parse(words: str, date_order: Literal["mdy", "dmy"] | None) -> tuple[int, int, int] | None:
    month = next((m for m in re.findall(r"[^\W\d_]+", words) if m in _MONTH_NUMBERS), None)
    numbers = re.findall(r"\d+", words)
    if month is not None:
        year = next((n for n in numbers if len(n) == 4), None)
        day = next((n for n in numbers if len(n) <= 2), None)
        return (int(year), _MONTH_NUMBERS[month], int(day)) if year and day and len(numbers) == 2 else None
    if len(numbers) == 1 and len(numbers[0]) == 8:
        return int(numbers[0][:4]), int(numbers[0][4:6]), int(numbers[0][6:])
    if len(numbers) != 3:
        return None
    if len(numbers[0]) == 4:
        return int(numbers[0]), int(numbers[1]), int(numbers[2])
    first, second, year = int(numbers[0]), int(numbers[1]), numbers[2]
    if len(year) != 4:
        return None  # the century is not said
    if "." in words or first > 12:
        order = "dmy"
    elif second > 12 or first == second:
        order = "mdy"
    elif date_order is None:
        return None
    else:
        order = date_order
    return (int(year), first, second) if order == "mdy" else (int(year), second, first)


def finder_of_words(names: Iterable[str], numbers: Iterable[str]) -> Finder:
    """Finds words known from elsewhere (the DICOM headers of the same patient), whatever their case.

    Args:
        names: surnames and given names; those of less than three letters and ordinary words are not looked for.
        numbers: patient ids and the like; those of less than four characters or without a digit are not looked for.
    """
    words = sorted(
        {n for n in names if len(n) >= 3 and n.lower() not in NO_NAMES and n.isalpha()}, key=len, reverse=True
    )
    ids = sorted({n for n in numbers if len(n) >= 4 and any(c.isdigit() for c in n)}, key=len, reverse=True)
    patterns = [
        (kind, re.compile(rf"(?i)(?<![^\W_])(?:{'|'.join(re.escape(word) for word in known)})(?![^\W_])"))
        for kind, known in (("name", words), ("record_number", ids))
        if known
    ]

    def find(text: str) -> Iterable[Identifier]:
        for kind, pattern in patterns:
            for match in pattern.finditer(text):
                # An ordinary word in lower case ("white matter") is no surname (Ms. White).
                if kind == "record_number" or not match.group().islower():
                    yield Identifier(kind=kind, start=match.start(), end=match.end())  # type: ignore[arg-type]

    return find
