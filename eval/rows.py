"""The files of a run folder: JSON rows appended safely, JSON written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medvlm.data_recipes.manifest import write_atomic

Row = dict[str, Any]


def _line(row: Any) -> str:
    line = json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
    if line.isascii():
        return line
    # Half of a surrogate pair, which a server may write as \ud83d, is no text and cannot be stored as UTF-8.
    return line.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def read_rows(path: Path, *, allow_torn: bool = False) -> list[Row]:
    """Every row of a JSONL file; an absent file holds none.

    Args:
        allow_torn: leave out a last line without newline: another process may be writing it.

    Raises:
        ValueError: a line is not JSON; names the line.
    """
    if not path.exists():
        return []
    rows: list[Row] = []
    # As bytes: a torn line may end in the middle of a letter.
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if allow_torn and not line.endswith(b"\n"):
                break
            try:
                rows.append(json.loads(line.decode()))
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                why = error.msg if isinstance(error, json.JSONDecodeError) else f"{error.reason} in UTF-8"
                raise ValueError(f"{path}:{number} is not JSON ({why}); remove the line and run the stage again") from (
                    None if isinstance(error, UnicodeDecodeError) else error  # which would hold the line itself
                )
    return rows


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Append ``rows`` and wait until they are on the disk."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(_line(row) for row in rows)
        file.flush()
        os.fsync(file.fileno())


def drop_torn_line(path: Path) -> bool:
    """Cut a last line that has no newline, which is what a killed run leaves; return whether there was one."""
    if not path.exists():
        return False
    content = path.read_bytes()
    if not content or content.endswith(b"\n"):
        return False
    with path.open("r+b") as file:
        file.truncate(content.rfind(b"\n") + 1)
        file.flush()
        os.fsync(file.fileno())
    return True


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Replace a JSONL file by ``rows``."""
    write_atomic(path, "".join(_line(row) for row in rows))


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file by ``value``, indented for people."""
    write_atomic(path, json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1) + "\n")
