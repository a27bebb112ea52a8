"""Measured tables inside written pages: the block between two markers is replaced, the rest stays."""

from __future__ import annotations


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
