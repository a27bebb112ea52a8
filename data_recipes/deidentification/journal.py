"""Which files of a run are finished: a line each, so that a stopped run goes on and another one is not mixed in."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from medvlm.data_recipes.deidentification.keyed import Key
from medvlm.data_recipes.deidentification.one_file import Outcome
from medvlm.data_recipes.deidentification.options import Options
from medvlm.data_recipes.whole_file import writing


class Refused(Exception):
    """A run that must not start; the message says why."""


def open_journal(path: Path, out: Path, key: Key, options: Options) -> Path:
    """The journal at ``path`` of the run into ``out``; its first line says which key and options it belongs to.

    Raises:
        Refused: it belongs to others.
    """
    settings = hashlib.sha256(options.fingerprint().encode()).hexdigest()[:16]
    head = {"key_check": key.check(), "options": settings}
    if not path.is_file():
        if out.is_dir() and any(one != path.parent for one in out.iterdir()):
            raise Refused(f"{out} is not empty and holds no earlier run; give a new folder")
        with writing(path) as stream:
            stream.write((json.dumps(head) + "\n").encode())
        return path
    with path.open(encoding="utf-8") as lines:
        before = json.loads(next(lines, "{}"))
    with path.open("rb+") as stream:
        stream.seek(-1, os.SEEK_END)
        if stream.read(1) != b"\n":
            stream.write(b"\n")  # a kill has torn the last line; what follows must not be glued to it
    if before != head:
        raise Refused(f"{out} holds a run with another key or other options; give a new folder")
    return path


def read_journal(path: Path) -> Iterator[Outcome]:
    """Finished files; a line that a kill has torn is passed over, its file is done again."""
    with path.open(encoding="utf-8") as lines:
        next(lines, None)
        for line in lines:
            try:
                yield Outcome(**json.loads(line))
            except json.JSONDecodeError:
                continue
