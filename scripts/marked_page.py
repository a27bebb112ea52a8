"""Measured tables inside written pages: the block between two markers is replaced, the rest stays."""

from __future__ import annotations

from pathlib import Path

from medvlm.data_recipes.manifest import write_atomic


def with_block(page: str, begin: str, end: str, text: str) -> str:
    """``page`` with ``text`` between the lines ``begin`` and ``end``.

    Raises:
        ValueError: the markers are not both there, in order.
    """
    before, first, rest = page.partition(begin)
    _, last, after = rest.partition(end)
    if not first or not last:
        raise ValueError(f"the page lacks the line {begin} or {end} after it; write both where the table shall stand")
    return f"{before}{begin}\n{text}\n{end}{after}"


def write_block(path: Path, begin: str, end: str, text: str) -> None:
    """``with_block`` on the file at ``path``, which is replaced at once.

    Raises:
        ValueError: the markers are not both there, in order.
    """
    write_atomic(path, with_block(path.read_text(encoding="utf-8"), begin, end, text))
