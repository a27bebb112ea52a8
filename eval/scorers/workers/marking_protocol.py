"""The child's side of a learned scorer: pairs of texts in, marks out, one JSON object a line.

Runs in a Python of its own, of another environment if need be: it imports nothing of medvlm, and Python 3.10 will do.

    parent -> {"settings": {...}, "batch_size": 16}
    child  -> {"about": {"package": ..., "version": ..., ...}}        or {"refused": "why, and the pip line"}
    parent -> {"id": "...", "answer": "...", "reference": "..."}      any number of them, then the end of the stream
    child  -> {"id": "...", "marks": {...}}                           or {"id": "...", "unscored": "why"}

Whatever libraries print goes to the error stream: the answers have the output to themselves.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

Pair = dict[str, str]
Settings = dict[str, Any]
Score = Callable[[list[Pair]], list[dict[str, Any]]]


class Refused(Exception):
    """The scorer cannot run here; the message says how it could."""


def serve(load: Callable[[Settings], tuple[dict[str, Any], Score]]) -> None:
    """Answer until the stream ends.

    Args:
        load: settings -> (about, score); ``score`` takes a list of pairs and gives a list of marks (dicts of plain JSON
            types) in their order. It raises Refused when the package or its weights are not there.
    """
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(row: dict[str, Any]) -> None:
        replies.write(json.dumps(row) + "\n")
        replies.flush()

    lines: Iterator[bytes] = iter(sys.stdin.buffer)
    first = json.loads(next(lines))
    try:
        about, score = load(first["settings"])
    except Refused as error:
        say({"refused": str(error)})
        return
    say({"about": dict(about, python=sys.version.split()[0])})
    batch: list[Pair] = []
    for line in lines:
        batch.append(json.loads(line))
        if len(batch) >= first["batch_size"]:
            _mark(batch, score, say)
            batch = []
    _mark(batch, score, say)


def _mark(batch: list[Pair], score: Score, say: Callable[[dict[str, Any]], None]) -> None:
    """Mark a batch; when that fails, mark one by one, so that one pair does not cost the others theirs."""
    if not batch:
        return
    try:
        marks = score(batch)
        if len(marks) != len(batch):
            raise ValueError(f"{len(marks)} marks for {len(batch)} pairs")
    except Exception as error:  # noqa: BLE001 - a package may raise anything, and the reason is written down
        if len(batch) == 1:
            say({"id": batch[0]["id"], "unscored": f"{type(error).__name__}: {str(error)[:200]}"})
            return
        for pair in batch:
            _mark([pair], score, say)
        return
    for pair, mark in zip(batch, marks, strict=True):
        say({"id": pair["id"], "marks": mark})


def import_first(names: Sequence[str], pip: str) -> ModuleType:
    """The first of ``names`` that can be imported, as a module.

    Raises:
        Refused: none can; says ``pip``.
    """
    failures = []
    for name in names:
        try:
            return import_module(name)
        except ImportError as error:
            failures.append(f"{name} ({error})")
    raise Refused(f"none of {', '.join(failures)} can be imported here; {pip}")


def version_of(module: ModuleType) -> dict[str, str]:
    """Name and version of the distribution that ``module`` belongs to."""
    for name in (module.__name__.split(".")[0], module.__name__.split(".")[0].replace("_", "-")):
        try:
            return {"package": name, "version": version(name)}
        except PackageNotFoundError:
            pass
    return {"package": module.__name__.split(".")[0], "version": "unknown"}
