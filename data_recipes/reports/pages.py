"""Headers and footers of pages, as PDF and RIS exports repeat them, found by repetition and by their words, removed.

Layout detection in clinical PDF tells header, body and footer by their place on the page; a text export has lost the
place and kept the repetition.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from medvlm.data_recipes.reports.headers import NAMES, headers

DEPTH = 8
"""Lines from the edge of a page among which repetition is looked for."""

_PAGE = re.compile(
    r"\s*[-–|(\[]?\s*(?:page|seite|p[aá]gina|pag\.?|feuille)\s*:?\s*\d+\s*(?:(?:of|von|de|/|sur)\s*\d+)?\s*[-–|)\]]?\s*"
    r"|\s*-\s*\d{1,3}\s*-\s*",
    re.IGNORECASE,
)
_WORDS = re.compile(
    r"\s*(?:printed\s+(?:by|on|at)\b|print\s+date\b|date\s+printed\b|gedruckt\s+(?:am|von)\b|ausdruck\s+vom\b"
    r"|impreso\s+(?:por|el)\b|imprim[eé]\s+(?:par|le)\b|impresso\s+(?:por|em)\b|report\s+generated\b"
    r"|accession\s*(?:number|no\.?|nr\.?|#)?\s*[:#]|acc\.?\s*(?:no\.?|#)\s*:?|this\s+document\s+was\s+(?:printed|generated)\b)",
    re.IGNORECASE,
)
_COUNT = re.compile(r"(?:page|seite|p[aá]gina|pag\.?)\s*:?\s*\d+(?:\s*(?:of|von|de|/|sur)\s*\d+)?", re.IGNORECASE)
_MEASURED = re.compile(r"\d\s*(?:mm|cm|ml|cc|hu|%|x\s*\d)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class RemovedLine:
    """A line that is no part of the report.

    Attributes:
        text: may name the patient: it is for the user's eyes, not for a manifest or a log, and not shown by repr.
        page: from 1; line: of the page, from 1.
        why: "page number", "export words" or "repeated on N pages".
    """

    page: int
    line: int
    text: str = field(repr=False)
    why: str


@dataclass(frozen=True, kw_only=True)
class Unpaged:
    """A text without page headers, footers and form feeds, and what was removed."""

    text: str
    removed: tuple[RemovedLine, ...] = ()
    pages: int = 1


def remove_page_furniture(text: str) -> Unpaged:
    """Join the pages of ``text``, divided by form feeds or else behind the lines that number them.

    A line goes when it numbers a page, begins with words that exports write ("Printed by", "Accession number:"), or
    lies at the edge of a page (DEPTH lines) and is the same, page numbers aside, at the same edge of at least half of
    the pages and at least two, as are all lines between it and the edge. Lines with a measurement stay, and so does a
    section header; one with its text behind it ("EXAM: CT CHEST") stays where it stands first. Of a page that would be
    empty no line goes for its repetition.
    """
    pages = _pages(text)
    counts = tuple(
        Counter(key for page in pages for key in {_key(page[p]) for p in _edge(page, last)}) for last in (False, True)
    )
    removed: list[RemovedLine] = []
    bodies = []
    for number, page in enumerate(pages, start=1):
        why = _reasons(page, counts, max(2, (len(pages) + 1) // 2), number == 1)
        removed.extend(
            RemovedLine(page=number, line=line + 1, text=page[line].strip(), why=reason) for line, reason in why.items()
        )
        kept = [line for place, line in enumerate(page) if place not in why]
        bodies.append("\n".join(kept).strip("\n"))
    if not removed and len(pages) == 1:
        return Unpaged(text=text)
    return Unpaged(text="\n".join(body for body in bodies if body.strip()), removed=tuple(removed), pages=len(pages))


def _pages(text: str) -> list[list[str]]:
    text = text.replace("\r\n", "\n")
    if "\f" in text:
        parts = [part for part in text.split("\f") if part.strip()]
        return [part.strip("\n").split("\n") for part in parts] or [[""]]
    pages: list[list[str]] = [[]]
    for line in text.split("\n"):
        pages[-1].append(line)
        if _PAGE.fullmatch(line.strip()):
            pages.append([])
    return [page for page in pages if any(line.strip() for line in page)] or [[""]]


def _edge(page: list[str], last: bool) -> list[int]:
    """Places of the DEPTH lines with text that are nearest to the top or the bottom, the nearest first."""
    places = [place for place, line in enumerate(page) if line.strip() and not _plain_reason(line)]
    return (places[::-1] if last else places)[:DEPTH]


def _key(line: str) -> str:
    return " ".join(_COUNT.sub("#", line).lower().split())


def _reasons(page: list[str], counts: tuple[Counter[str], ...], least: int, first: bool) -> dict[int, str]:
    """Place of a line of ``page`` -> why it goes."""
    why = {place: reason for place, line in enumerate(page) if (reason := _plain_reason(line))}
    for last, count in zip((False, True), counts, strict=True):
        for place in _edge(page, last):
            line = page[place]
            times = count[_key(line)]
            header = next((h for h in headers(line) if h.name in NAMES), None)
            if times < least or _MEASURED.search(line) or (header and not line[header.end :].strip()):
                break
            if header is None or not first:
                why[place] = f"repeated on {times} pages"
    if all(place in why for place, line in enumerate(page) if line.strip()):
        # The page is a copy of another, or holds nothing else: repetition cannot tell header from body.
        why = {place: reason for place, reason in why.items() if not reason.startswith("repeated")}
    return dict(sorted(why.items()))


def _plain_reason(line: str) -> str | None:
    if _PAGE.fullmatch(line.strip()):
        return "page number"
    return "export words" if _WORDS.match(line.strip()) else None
