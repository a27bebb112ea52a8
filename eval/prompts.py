"""How a model is told to write its answer. A task's own words are its prompt; a style only adds how to end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

from medvlm.data_recipes.sample import Turn

Style = Literal["plain", "reason", "boxed"]
STYLES: tuple[Style, ...] = get_args(Style)

ADDED: Mapping[Style, str] = {
    "plain": "",
    "reason": "Think step by step. Then write the answer alone inside <answer></answer>.",
    "boxed": "Think step by step. Then write the answer alone inside \\boxed{}.",
}
"""What each style adds below the question. Extraction reads both forms of marking an answer."""

ROOM_TO_THINK: Mapping[Style, int] = {"plain": 0, "reason": 1024, "boxed": 1024}
"""Tokens on top of those of the answer."""


def in_style(turns: Sequence[Turn], style: Style) -> tuple[Turn, ...]:
    """``turns`` whose last one, the question, ends as ``style`` says."""
    if not ADDED[style]:
        return tuple(turns)
    last = turns[-1]
    return (*turns[:-1], replace(last, content=(*last.content, ADDED[style])))
