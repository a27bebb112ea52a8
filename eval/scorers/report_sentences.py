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


def sentences(report: str) -> list[str]:
    """Lower-case sentences without section names; "3.5 cm" is not cut."""
    text = _without_what_was_told(report.lower())
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
