"""Rows of the ``datasets`` library: a hub id, a folder of save_to_disk, or Parquet files.

Pictures and clips inside the rows are written once, under the SHA-256 of their bytes, and the row then names the file.
Rows of a hub id are streamed; that path needs network and is not run by the tests.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.tables import Row

_MAGIC = {
    b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"II*\0": ".tif", b"MM\0*": ".tif", b"GIF8": ".gif", b"BM": ".bmp",
    b"\x1f\x8b": ".nii.gz",
}  # fmt: skip


def datasets_library() -> Any:
    """The ``datasets`` module.

    Raises:
        BadSample: it is not installed.
    """
    try:
        return import_module("datasets")
    except ImportError as error:
        raise BadSample(
            "these rows are read by the library 'datasets', which is not installed",
            where="the recipe",
            mend="pip install 'medvlm[datasets]'",
        ) from error


def is_datasets_folder(path: Path) -> bool:
    """Whether save_to_disk wrote this folder, or it holds Parquet files."""
    saved = (path / "dataset_dict.json", path / "state.json")
    return any(file.is_file() for file in saved) or any(path.glob("*.parquet"))


def read_folder(path: Path, visuals: Path) -> Iterator[tuple[str, Row | BadSample]]:
    """(split, row) of a Parquet file, a folder of them, or a folder of save_to_disk.

    Raises:
        BadSample: the library is not installed, or refuses the folder.
    """
    library = datasets_library()
    try:
        if path.is_dir() and not any(path.glob("*.parquet")):
            found = library.load_from_disk(str(path))
        else:
            files = [str(path)] if path.is_file() else sorted(str(file) for file in path.glob("*.parquet"))
            found = library.load_dataset("parquet", data_files={"train": files}, streaming=True)["train"]
    except (OSError, ValueError) as error:
        raise BadSample(
            f"datasets cannot read it ({type(error).__name__})", where=str(path), mend="save the dataset again"
        ) from error
    parts = found if isinstance(found, dict) else {"": found}
    for name, part in parts.items():
        yield from ((name, row) for row in _rows(part, f"{path}{'/' + name if name else ''}", visuals))


def read_hub(name: str, config: str | None, split: str | None, visuals: Path) -> Iterator[tuple[str, Row]]:
    """(split, row) of a dataset on the hub, streamed.

    Raises:
        BadSample: the library is not installed, or the hub does not give the dataset.
    """
    library = datasets_library()
    try:
        found = library.load_dataset(name, config, split=split, streaming=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise BadSample(
            f"the hub did not give it ({type(error).__name__})",
            where=f"hub:{name}",
            mend="check the id, hub_config, hub_split, the network and, for a gated dataset, your login",
        ) from error
    parts = found if isinstance(found, dict) else {split or "": found}
    for part_name, part in parts.items():
        yield from ((part_name, row) for row in _rows(part, f"hub:{name}/{part_name}", visuals))


def _rows(part: Any, where: str, visuals: Path) -> Iterator[Row]:
    undecoded = _undecoded(part)
    for number, values in enumerate(undecoded, start=1):
        yield Row(where=f"{where}:{number}", number=number, values=_with_files(values, visuals))


def _undecoded(part: Any) -> Any:
    """The same rows with the bytes of files instead of decoded pictures: nothing is encoded a second time."""
    return part.decode(False) if hasattr(part, "decode") else _cast(part)


def _cast(part: Any) -> Any:
    library = datasets_library()
    media = tuple(getattr(library, name) for name in ("Image", "Video", "Nifti") if hasattr(library, name))

    def without(feature: Any) -> Any:
        if isinstance(feature, media):
            return type(feature)(decode=False)
        if isinstance(feature, dict):
            return type(feature)({key: without(value) for key, value in feature.items()})
        if isinstance(feature, list):
            return [without(value) for value in feature]
        if hasattr(feature, "feature"):
            return type(feature)(without(feature.feature))
        return feature

    return part.cast(without(part.features)) if part.features is not None else part


def _with_files(value: Any, visuals: Path) -> Any:
    """``value`` with every {"bytes", "path"} replaced by the path of a file."""
    if isinstance(value, list):
        return [_with_files(item, visuals) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"bytes", "path"}:
        return write_once(value["bytes"], visuals) if value["bytes"] else value["path"]
    return {key: _with_files(item, visuals) for key, item in value.items()}


def write_once(data: bytes, folder: Path) -> str:
    """Write ``data`` under its SHA-256 unless it is there already; the absolute path."""
    digest = hashlib.sha256(data).hexdigest()
    suffix = next((suffix for magic, suffix in _MAGIC.items() if data.startswith(magic)), ".bin")
    path = folder.resolve() / digest[:2] / f"{digest}{suffix}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    return str(path)
