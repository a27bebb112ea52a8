"""Sentences of a report, each with its place; numbers, measurements and abbreviations do not end one."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SHORT = {
    "dr", "drs", "mr", "mrs", "ms", "prof", "st", "vs", "approx", "ca", "cf", "e.g", "eg", "i.e", "ie", "fig", "figs",
    "no", "nos", "resp", "incl", "min", "max", "z.b", "bzw", "ggf", "evtl", "vgl", "li", "re", "bds", "sog", "inkl",
    "p.ex", "p. ex", "env", "aprox", "ej", "sr", "sra", "dra", "a.m", "p.m", "d.h", "u.a",
}  # fmt: skip
"""Words that a full stop follows inside a sentence. "no." ends a sentence unless a number follows."""

_END = re.compile(r"[.!?]+[)\]\"']*(?=\s|$)|(?<=[a-z]{3})\.(?=[A-Z][a-z])|\n[ \t]*\n")
_ITEM = re.compile(r"\n(?=[ \t]*(?:\d{1,2}[.)]|[-*•])[ \t]+\S)")
_NEARBY = 40
"""Characters around a full stop that decide whether it ends a sentence."""
_LABEL = re.compile(r"^\s*(?:\(?\d{1,2}|[A-Za-z]|[ivxIVX]{1,4})$")


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """``text`` stripped; it stands at ``start`` to ``end``."""

    text: str
    start: int
    end: int


def sentences(text: str) -> tuple[Sentence, ...]:
    """The sentences of ``text``. The number of a list item belongs to its sentence; a blank line and a new list item
    end a sentence that has no full stop."""
    ends = sorted({*(m.end() for m in _END.finditer(text) if _ends(text, m)), *(m.end() for m in _ITEM.finditer(text))})
    found, start = [], 0
    for end in (*ends, len(text)):
        body = text[start:end].strip()
        if body:
            begin = start + len(text[start:end]) - len(text[start:end].lstrip())
            found.append(Sentence(text=body, start=begin, end=begin + len(body)))
        start = end
    return tuple(found)


def without(text: str, unwanted: tuple[Sentence, ...]) -> str:
    """``text`` without these sentences and without the white space that they leave; the rest is as written."""
    kept, place = "", 0
    for start, end in (*((sentence.start, sentence.end) for sentence in unwanted), (len(text), len(text))):
        kept = _seam(kept, text[place:start]) if place else text[:start]
        place = end
    return kept.strip() if unwanted else text


def _seam(before: str, after: str) -> str:
    """Both, with the largest of the breaks that lay around the gap: blank line, line break or space."""
    left, right = before.rstrip(), after.lstrip()
    space = before[len(left) :] + after[: len(after) - len(right)]
    lines = min(2, max(before[len(left) :].count("\n"), after[: len(after) - len(right)].count("\n")))
    return left + ("\n" * lines or (" " if space and left and right else "")) + right if right else before


def _ends(text: str, match: re.Match[str]) -> bool:
    if not match.group().strip():
        return True
    nearby = max(0, match.start() - _NEARBY)  # Enough for any abbreviation, and the time stays linear in the text.
    line = text[max(text.rfind("\n", nearby, match.start()) + 1, nearby) : match.start()]
    after = text[match.end() : match.end() + _NEARBY].lstrip()
    if not match.group().startswith("."):
        return True
    if _LABEL.match(line) or re.search(r"(?:^|[.:;?!]\s+)\(?\d{1,2}$", line):
        return False  # "1. ...": the number of a list item
    word = re.split(r"[\s(]", line)[-1].lower()
    if word in ("no", "nos"):
        return not after[:1].isdigit()
    if word in _SHORT:
        return False
    return not after or not after[0].islower()
