"""Datasets as the Hugging Face hub keeps them: Parquet files a split, pictures inside the rows, a card beside them.

A snapshot lies in one folder: README.md (the card) and ``data/<split>-00000-of-00003.parquet``. Rows are read a few at
a time; a picture inside a row, {"bytes", "path"}, is written once below PICTURES under the SHA-256 of its bytes. Only
pyarrow is needed, not the ``datasets`` library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.own.hub import write_once
from medvlm.data_recipes.tables import Row

PICTURES = "pictures_of_parquet"
"""Below the folder of the dataset."""
OWNED = ("README.md", "data/*.parquet", "*.parquet", f"{PICTURES}/**/*")
"""The files of such a snapshot, as patterns of a Recipe."""
_BATCH = 32
_CARD_NAME = re.compile(r"^pretty_name:\s*[\"']?(.*?)[\"']?\s*$", re.MULTILINE)


def place_of(folder: Path, *names: str) -> Path | None:
    """``folder`` or the first folder in it that holds one of ``names`` (patterns): archives unpack one level down."""
    below = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    for place in (folder, *below):
        if any(next(place.glob(name), None) is not None for name in names):
            return place
    return None


def card_name(folder: Path) -> str | None:
    """What the card in ``folder`` calls the dataset; None when there is no card or it does not say."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    found = _CARD_NAME.search(card.read_text(encoding="utf-8", errors="replace"))
    return found[1] if found else None


def parquet_of(folder: Path, split: str) -> list[Path]:
    """The Parquet files of one split in their order: data/<split>-*.parquet, <split>-*.parquet or <split>.parquet."""
    for place in (folder / "data", folder):
        found = sorted({*place.glob(f"{split}-*.parquet"), *place.glob(f"{split}.parquet")})
        if found:
            return found
    return []


def read_split(folder: Path, split: str, *, required: tuple[str, ...]) -> Iterator[Row]:
    """Rows of one split, numbered from 1 over all its files; pictures have become absolute paths.

    Raises:
        BadSample: pyarrow is not installed, a file is no Parquet, is missing among its numbered siblings or lacks a
            column, or the folder cannot be written to.
    """
    files = parquet_of(folder, split)
    _check_siblings(files)
    number = 0
    for path in files:
        table = _open(path)
        missing = [name for name in required if name not in table.schema_arrow.names]
        if missing:
            raise BadSample(
                f"column {missing[0]!r} is missing; there are {table.schema_arrow.names[:12]}",
                where=str(path),
                mend="use the files as they lie on the hub",
            )
        for batch in table.iter_batches(batch_size=_BATCH):
            for values in batch.to_pylist():
                number += 1
                where = f"{path}:{number}"
                yield Row(where=where, number=number, values={k: _file(v, folder, where) for k, v in values.items()})


def _check_siblings(files: list[Path]) -> None:
    """Refuse when data/test-00000-of-00003 is there and data/test-00001-of-00003 is not: a part is not the split."""
    for path in files:
        numbered = re.search(r"-of-(\d+)\.parquet$", path.name)
        if numbered and int(numbered[1]) != len(files):
            raise BadSample(
                f"{len(files)} of {int(numbered[1])} files of the split are here",
                where=str(path),
                mend="download the others too",
            )


def _open(path: Path) -> Any:
    try:
        parquet = import_module("pyarrow.parquet")
        wrong = import_module("pyarrow.lib").ArrowException
    except ImportError as error:
        raise BadSample(
            "Parquet files are read by pyarrow, which is not installed", where=str(path), mend="pip install pyarrow"
        ) from error
    try:
        return parquet.ParquetFile(path)
    except (wrong, OSError) as error:
        raise BadSample(
            f"not a readable Parquet file ({type(error).__name__})", where=str(path), mend="download it again"
        ) from error


def _file(value: Any, folder: Path, where: str) -> Any:
    """``value``; a picture {"bytes", "path"} as the absolute path of its file, None when it holds neither."""
    if not isinstance(value, dict) or set(value) != {"bytes", "path"}:
        return value
    if not value["bytes"]:
        return str((folder / value["path"]).resolve()) if value["path"] else None
    return keep_picture(value["bytes"], folder, where)


def keep_picture(data: bytes, folder: Path, where: str) -> str:
    """Write a picture that lies inside of a row once, below ``folder``; the absolute path of its file.

    Raises:
        BadSample: the folder cannot be written to; names ``where``.
    """
    try:
        return write_once(data, folder / PICTURES)
    except OSError as error:
        raise BadSample(
            f"the pictures inside of the rows cannot be written to {folder / PICTURES} ({error.strerror})",
            where=where,
            mend="make the folder of the dataset writable, or copy it to where it is",
        ) from error
