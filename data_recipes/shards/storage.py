"""Where shards are written: a local folder, or any storage that fsspec writes to. Files appear whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medvlm.data_recipes.manifest import sha256_of
from medvlm.data_recipes.shards.byte_ranges import is_url, join, local_path, read_whole, retrying, storage_of
from medvlm.data_recipes.whole_file import sync_folder

PARTIAL = ".partial"
"""How names of unfinished files end; what a killed run left is removed by the next."""


def prepare(out: str) -> None:
    """Make a local folder and clear what a killed run left in it; call it under the folder's lock."""
    if not is_url(out):
        folder = local_path(out)
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f".*{PARTIAL}"):
            left.unlink(missing_ok=True)


@contextmanager
def new_file(out: str, name: str) -> Iterator[Path]:
    """A path to write; becomes ``name`` in ``out`` when the block ends without an error.

    In a folder: written beside, flushed to the disk, renamed. In a storage: written to a temporary file of this
    machine and sent as one object, which object stores show whole or not at all.
    """
    remote = is_url(out)
    folder = None if remote else local_path(out)
    handle, text = tempfile.mkstemp(dir=folder, prefix=f".{name}.", suffix=PARTIAL)
    os.close(handle)
    temporary = Path(text)
    try:
        yield temporary
        if folder is None:
            send(temporary, join(out, name))
            return
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes it readable by its owner only
        temporary.rename(folder / name)
        sync_folder(folder)
    finally:
        temporary.unlink(missing_ok=True)


def send(source: Path, place: str) -> None:
    """Copy a local file to a url."""
    storage, path = storage_of(place)
    retrying(lambda: storage.put_file(str(source), path), place)


def write_text(out: str, name: str, text: str) -> None:
    """A small file, whole or not at all."""
    with new_file(out, name) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(place: str) -> Any:
    """The content of a small JSON file, or None when there is no such file.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return json.loads(read_whole(place))
    except FileNotFoundError:
        return None


def same(place: str, *, size: int, sha256: str) -> bool:
    """Whether the file is there as it was written: by its sum in a folder, by its size in a storage.

    Reading every object of a bucket again would cost as much as its traffic; readers check sums as they stream.
    """
    if not is_url(place):
        path = local_path(place)
        return path.is_file() and path.stat().st_size == size and sha256_of(path) == sha256
    storage, path_in = storage_of(place)
    try:
        return int(retrying(lambda: storage.size(path_in), place)) == size
    except FileNotFoundError:
        return False
