"""A radiology report -> its sections, each with its place in the text; nothing is guessed.

Layouts that are read: MIMIC-CXR (Johnson et al., Scientific Data 6:317, 2019: upper-case headers, "FINAL REPORT", "WET
READ", paragraphs without a header), Open-i (labels of XML elements, see ``from_parts``), CheXpert Plus (Chambon et al.,
arXiv:2405.19538, 2024: columns ``section_*``, or the whole ``report`` from NARRATIVE to END OF IMPRESSION), and header
words in German, Spanish, French and Portuguese. The convention that the last paragraph of a report without headers is
its impression (MIT-LCP/mimic-cxr) is offered as ``Report.last_paragraph``, never applied.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from medvlm.data_recipes.reports.headers import BRIEF, Header, canonical, headers

WITHIN = ("findings", "impression", "findings and impression")
"""Sections whose paragraphs may have upper-case subheadings of their own ("LUNGS:")."""

ASIDE = ("wet read", "preliminary report", "addendum", "nachtrag", "adenda")
"""Parts of a report that stand beside the final one: their impression is not the impression of the report."""

_RULE = re.compile(r"^[ \t]*(?:[_=*-][ \t]*){6,}$", re.MULTILINE)
_PARAGRAPHS = re.compile(r"\n[ \t]*(?:\r?\n[ \t]*)+")


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section of a report.

    Attributes:
        name: findings, impression, findings and impression, indication, history, comparison, technique, examination, or
            the words of another header in lower case; "" for text that no header names.
        header: as written; "" when there is none.
        text: stripped, otherwise as written: numbering and line breaks stay.
        start: of ``text`` in ``Report.text``; end: behind it.
        aside: "wet read", "addendum", ... when the section lies in such a part; "" in the report itself.
    """

    name: str
    header: str
    text: str
    start: int
    end: int
    aside: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report and its sections in order; a property is None when no header of that name stands in the report.

    Attributes:
        text: the whole report; ``text[section.start:section.end] == section.text`` for every section.
        parts: all sections, in the order of the text.
        last_paragraph: the last paragraph, where neither findings nor an impression has a header and no header stands
            over the paragraph. By the convention of MIMIC-CXR it is the impression; whoever uses it says so.
    """

    text: str
    parts: tuple[Section, ...]
    last_paragraph: Section | None = None

    def named(self, name: str) -> tuple[Section, ...]:
        """The sections called ``name`` that hold text, without wet reads and addenda."""
        return tuple(part for part in self.parts if part.name == name and part.text and not part.aside)

    def text_of(self, name: str) -> str | None:
        """The text of ``name``: all sections of that name, joined by a line break, a text that is repeated word for
        word once; None where there is none. ``repeated`` says which sections came twice with different words."""
        return "\n".join(_different(self.named(name))) or None

    @property
    def findings(self) -> str | None:
        return self.text_of("findings")

    @property
    def impression(self) -> str | None:
        return self.text_of("impression")

    @property
    def findings_and_impression(self) -> str | None:
        """What stands under one header for both; it is neither of the two alone."""
        return self.text_of("findings and impression")

    @property
    def indication(self) -> str | None:
        return self.text_of("indication")

    @property
    def history(self) -> str | None:
        return self.text_of("history")

    @property
    def comparison(self) -> str | None:
        return self.text_of("comparison")

    @property
    def technique(self) -> str | None:
        return self.text_of("technique")

    @property
    def unlabelled(self) -> tuple[Section, ...]:
        """Text of the report itself over which no header stands."""
        return self.named("")

    @property
    def others(self) -> dict[str, str]:
        """Every other named section, and what stands in wet reads and addenda ("addendum: impression")."""
        known = {*WITHIN, "indication", "history", "comparison", "technique", ""}
        found: dict[str, list[Section]] = {}
        for part in self.parts:
            name = ": ".join(word for word in (part.aside, part.name) if word)
            if part.text and (part.aside or part.name not in known):
                found.setdefault(name if part.name != part.aside else part.name, []).append(part)
        return {name: "\n".join(_different(parts)) for name, parts in found.items()}

    @property
    def repeated(self) -> tuple[str, ...]:
        """Names of sections that occur more than once with different words."""
        names = dict.fromkeys(part.name for part in self.parts if part.name)
        return tuple(name for name in names if len(_different(self.named(name))) > 1)


def _different(parts: Iterable[Section]) -> list[str]:
    seen: dict[str, str] = {}
    for part in parts:
        seen.setdefault(" ".join(part.text.lower().split()), part.text)
    return list(seen.values())


def sections(text: str) -> Report:
    """The sections of ``text``; a report without any header is one section without a name."""
    parts: list[Section] = []
    aside, current = "", None
    found = list(headers(text))
    first = found[0].start if found else len(text)
    parts.extend(_split(text, 0, first, None, ""))
    for number, header in enumerate(found):
        end = found[number + 1].start if number + 1 < len(found) else len(text)
        if header.name == "final report":
            aside, current = "", None
            parts.extend(_split(text, header.end, end, None, ""))
            continue
        if not header.known and current is not None and current.name in WITHIN and parts[-1].name == current.name:
            parts[-1] = _grown(text, parts[-1], end)
            continue
        if header.name in ASIDE:
            aside = header.name
        current = header
        parts.extend(_split(text, header.end, end, header, aside))
        aside = "" if _RULE.search(text, header.end, end) else aside
    kept = tuple(part for part in parts if part.text or part.header)
    return Report(text=text, parts=kept, last_paragraph=_last_paragraph(text, kept))


def from_parts(parts: Iterable[tuple[str, str | None]]) -> Report:
    """A report of (header, text) pairs, as columns or XML labels publish them; an empty text is no section.

    The headers are written as in MIMIC-CXR into ``Report.text``. A leading ``section_`` and underscores of a column
    name are no part of the header. Nothing inside the texts is taken for a header.
    """
    whole, found = "", []
    for header, text in parts:
        if text is None or not text.strip():
            continue
        words = " ".join(header.removeprefix("section_").replace("_", " ").split())
        name = canonical(words) or words.lower()
        whole += f"{words.upper()}: " if words else ""
        start = len(whole)
        whole += text.strip() + "\n"
        found.append(Section(name=name, header=words, text=text.strip(), start=start, end=start + len(text.strip()),
                             aside=name if name in ASIDE else ""))  # fmt: skip
    return Report(text=whole, parts=tuple(found))


def _split(text: str, start: int, end: int, header: Header | None, aside: str) -> list[Section]:
    """The section of ``header`` between ``start`` and ``end``, and what follows it without a header."""
    rule = _RULE.search(text, start, end)
    stop = rule.start() if rule else end
    name, words = (header.name, header.words) if header else ("", "")
    begin = start + len(text[start:stop]) - len(text[start:stop].lstrip())
    blank = _PARAGRAPHS.search(text, begin, stop) if header is None or not header.known or name in BRIEF else None
    pieces = []
    if blank and header is not None:
        pieces = [_section(text, start, blank.start(), name, words, aside), *_loose(text, blank.end(), stop, aside)]
    else:
        pieces = [_section(text, start, stop, name, words, aside)]
    if rule:
        # A line across the page ends a wet read and everything else that stands above it.
        pieces.extend(_loose(text, rule.end(), end, ""))
    return pieces


def _loose(text: str, start: int, end: int, aside: str) -> list[Section]:
    part = _section(text, start, end, "", "", aside)
    return [part] if part.text.strip("_=*- \t\r\n") else []


def _section(text: str, start: int, end: int, name: str, header: str, aside: str) -> Section:
    inner = text[start:end]
    begin = start + len(inner) - len(inner.lstrip())
    body = inner.strip()
    return Section(name=name, header=header, text=body, start=begin, end=begin + len(body), aside=aside)


def _grown(text: str, part: Section, end: int) -> Section:
    return _section(text, part.start, end, part.name, part.header, part.aside)


def _last_paragraph(text: str, parts: tuple[Section, ...]) -> Section | None:
    """The last paragraph when no header says where findings or impression are, and none stands over it."""
    if any(part.name in WITHIN and not part.aside for part in parts):
        return None
    bodies = [part for part in parts if part.text and not part.aside]
    if not bodies or bodies[-1].name:
        return None
    last = bodies[-1]
    breaks = list(_PARAGRAPHS.finditer(text, last.start, last.end))
    return _section(text, breaks[-1].end() if breaks else last.start, last.end, "", "", "")
