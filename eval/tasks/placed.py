"""Pictures in the places where a question mentions them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Part, Sample, VisualRef

_MARK = re.compile(r"<image[ _]?(\d+)>")


def mentioned(text: str) -> list[int]:
    """Numbers of the pictures that ``text`` mentions as <image 1>, in order, each once."""
    return list(dict.fromkeys(int(number) for number in _MARK.findall(text)))


def in_their_places(sample: Sample, pictures: Mapping[int, VisualRef], *, where: str) -> Sample:
    """``sample`` whose last turn shows each picture where its text first mentions it, and names it where it does again.

    Pictures that are not mentioned stand before the text, in their order.

    Args:
        pictures: number -> picture.

    Raises:
        BadSample: a picture is mentioned that is not there.
    """
    turn = sample.turns[-1]
    text = turn.text
    absent = [number for number in mentioned(text) if number not in pictures]
    if absent:
        raise BadSample(
            f"the question shows image {absent[0]}, and there is none",
            where=where,
            mend="use the table with its pictures",
        )
    parts: list[Part] = [pictures[number] for number in sorted(set(pictures) - set(mentioned(text)))]
    shown: set[int] = set()
    rest = 0
    written = ""
    for match in _MARK.finditer(text):
        number = int(match[1])
        written += text[rest : match.start()]
        rest = match.end()
        if number in shown:
            written += f"image {number}"
            continue
        if written.strip():
            parts.append(written.strip())
        parts.append(pictures[number])
        shown.add(number)
        written = ""
    written += text[rest:]
    if written.strip():
        parts.append(written.strip())
    return replace(sample, turns=(*sample.turns[:-1], replace(turn, content=tuple(parts))))
