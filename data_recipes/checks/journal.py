"""An append-only file of JSON lines by key: what was found out once is not found out again after a kill."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any


class Journal:
    """Lines with a "key"; the offset of each key is all that memory holds.

    A line that a kill cut off is dropped when the file is opened again. One process writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[bytes, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        whole = 0
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    key = json.loads(line)["key"]
                except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
                    key = None  # written by another version, or damaged: what it told is found out again
                if isinstance(key, str):
                    self._places[key.encode()] = whole
                whole += len(line)
        os.truncate(path, whole)
        self._file = path.open("r+b")

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def __contains__(self, key: str) -> bool:
        return key.encode() in self._places

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: str) -> dict[str, Any]:
        """The line of ``key``.

        Raises:
            KeyError: there is none.
        """
        self._file.seek(self._places[key.encode()])
        return json.loads(self._file.readline())

    def add(self, row: dict[str, Any]) -> None:
        """Append a line; it survives a kill of this process from now on."""
        place = self._file.seek(0, os.SEEK_END)
        self._file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
        self._file.flush()
        self._places[row["key"].encode()] = place
