"""A report as lower-case sentences, without what is not seen on this image: indication, history, technique."""

from __future__ import annotations

import re

_HEADER = re.compile(
    r"\b(?P<seen>findings?|impressions?|conclusions?|interpretation|report|opinion|chest)\s*:"
    r"|\b(?P<told>(?:clinical )?(?:indications?|history|information)|reason for (?:the )?(?:exam(?:ination)?|study)|"
    r"comparisons?|techniques?|exam(?:ination)?|procedure|views?)\s*:"
)
_NUMBER = re.compile(r"^\s*\d+[.)]\s+", re.MULTILINE)
_ITEM = re.compile(r"(?<=[.;:])\s+\d{1,2}[.)]\s+(?=[a-z])")
_END = re.compile(r"(?<!\d)\.|\.(?!\d)|[!?\n]+")


_JOINS = r"(?:of|and|or|nor|with|without|in|to|for|from|is|are|was|were|has|have|which|that|at|on|by|as)"
_ENDS_OPEN = re.compile(
    rf"(?:,|\b(?:{_JOINS}|the|an?|no|not|any|there|this|left|right|small|large|mild))$", re.IGNORECASE
)
_JOINING = re.compile(rf"{_JOINS}\b", re.IGNORECASE)
_ITEM_MARK = re.compile(r"(?:\d{1,2}[.)]|[-*•])\s")
_LONG = 50
"""Characters from which on a line without an end is taken to be wrapped, not an item of a list."""


def _unwrapped(report: str) -> str:
    """Lines that a printer has wrapped put together again ("There is no" / "pleural effusion."); items of a list stay.

    A line goes on in the next one where it has no end of a sentence and the next begins in lower case or with a joining
    word, or where it ends with a word that needs another, or is long.
    """
    found: list[str] = []
    for line in report.split("\n"):
        before, now = (found[-1].rstrip() if found else ""), line.strip()
        goes_on = (
            bool(before and now)
            and before[-1] not in ".:;!?"
            and not _ITEM_MARK.match(now)
            and (
                now[0].islower()
                or _JOINING.match(now) is not None
                or _ENDS_OPEN.search(before) is not None
                or len(before) >= _LONG
            )
        )
        if goes_on:
            found[-1] = f"{before} {now}"
        else:
            found.append(line)
    return "\n".join(found)


def sentences(report: str) -> list[str]:
    """Lower-case sentences without section names; "3.5 cm" is not cut, wrapped lines are put together."""
    text = _without_what_was_told((_unwrapped(report) if "\n" in report else report).lower())
    text = _ITEM.sub(" . ", _NUMBER.sub(". ", text))
    return [plain for part in _END.split(text) if (plain := " ".join(part.split()))]


def _without_what_was_told(text: str) -> str:
    """Sections that tell why and how the image was made are left out: whole where another section follows, else their
    first sentence."""
    headers = list(_HEADER.finditer(text))
    if not headers:
        return text
    parts = [text[: headers[0].start()]]
    for place, header in enumerate(headers):
        stop = headers[place + 1].start() if place + 1 < len(headers) else len(text)
        section = text[header.end() : stop]
        if header["told"] and stop == len(text):
            section = "".join(_END.split(section, maxsplit=1)[1:])
        elif header["told"]:
            section = ""
        parts.append(section)
    return ". ".join(parts)
