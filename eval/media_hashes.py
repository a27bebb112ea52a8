"""Requests named by what they show: a picture that was replaced is asked about again, one that was moved is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from rich.console import Console
from rich.progress import track

from medvlm.data_recipes.manifest import sha256_of
from medvlm.data_recipes.sample import Turn, VisualRef
from medvlm.eval.plan import Ask, Plan, request_name


def name_by_content(plan: Plan, *, show_progress: bool | None = None) -> Plan:
    """``plan`` with the SHA-256 of every visual in its turns, and requests named accordingly.

    A hash that the manifest states is believed. A file that is not there keeps its path; the generate stage says why it
    cannot be read.

    Args:
        show_progress: None: only on a terminal.
    """

    @cache
    def hashed(path: Path) -> str | None:
        return sha256_of(path) if path.exists() else None

    console = Console(stderr=True)
    hidden = not (console.is_terminal if show_progress is None else show_progress)
    asks = track(plan.asks, "reading what is shown", console=console, disable=hidden)
    return replace(plan, asks=tuple(_named(ask, hashed) for ask in asks))


def _named(ask: Ask, hashed: Callable[[Path], str | None]) -> Ask:
    def part(value: str | VisualRef) -> str | VisualRef:
        if isinstance(value, str) or value.sha256 is not None:
            return value
        return replace(value, sha256=hashed(ask.item.root / value.path))

    turns: tuple[Turn, ...] = tuple(replace(t, content=tuple(part(value) for value in t.content)) for t in ask.turns)
    name = request_name(ask.item.sample.sample_id, ask.condition, turns, ask.max_new_tokens)
    return replace(ask, turns=turns, request_id=name)
