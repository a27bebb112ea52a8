"""Items of a JSON list, one after the other: a file of gigabytes never stands in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medvlm.data_recipes.errors import BadSample

CHUNK = 1 << 20
LARGEST_ITEM = 64 << 20
"""Characters; a longer item is a broken one (a quote or bracket that is never closed)."""
_SPACE = " \t\r\n"


def read_items(path: Path) -> Iterator[tuple[int, Any] | BadSample]:
    """(number from 1, item) of each item; a broken item comes out as BadSample and ends the file.

    Raises:
        BadSample: the file does not begin with "[".
        UnicodeDecodeError: not UTF-8.
    """
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8-sig") as file:
        text = file.read(CHUNK).lstrip(_SPACE)
        if not text.startswith("["):
            raise BadSample("expected a list of objects", where=str(path), mend="write [ {...}, {...} ], or JSON lines")
        text, number, ended = text[1:], 0, False
        while True:
            text = text.lstrip(_SPACE + ("," if number else ""))
            if text.startswith("]"):
                return
            try:
                item, end = decoder.raw_decode(text)
                complete = end < len(text) or ended  # "12" at the end of a chunk may go on as "123"
            except json.JSONDecodeError as error:
                problem, complete = error.msg, False
            else:
                problem = "the list is not closed"
            if complete:
                number += 1
                yield number, item
                text = text[end:]
                continue
            more = "" if len(text) > LARGEST_ITEM else file.read(max(CHUNK, len(text)))
            if not more:
                yield BadSample(
                    f"not JSON: {problem} in item {number + 1}; the rest of the file is not read",
                    where=f"{path}:{number + 1}",
                    mend="fix the item, or write JSON lines, of which only the broken line is left out",
                )
                return
            text += more
