"""A visual that lies in a shard: a byte range of a tar file, local or remote (medvlm.data_recipes.shards)."""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import VisualRef
from medvlm.data_recipes.shards.arrays import array_in, from_array
from medvlm.data_recipes.shards.byte_ranges import is_url, read_range
from medvlm.model.visual import Visual

PLACE = ("member", "stored", "shape", "offset", "size", "crc32", "url")
"""Options that say where the bytes lie; the others are those of the reader of what is stored.

``member`` is the name in the tar, ``stored`` is array (an .npy made by shards.arrays) or source (the file as it was),
``shape`` is (depth, height, width) of what comes out, frames for depth of a video and 1 for it of an image,
``url`` is where the shard comes from when ``path`` names a copy in a cache that may be gone."""

_MEND = "copy or build the shard again"


def is_member(ref: VisualRef) -> bool:
    """Whether ``ref`` names a byte range of a shard."""
    return "member" in ref.options and "offset" in ref.options


def header_size(ref: VisualRef) -> tuple[int, int, int] | None:
    """(depth, height, width) of an image or volume, as the build wrote it down; None for a video."""
    if ref.kind == "video":
        return None
    depth, height, width = ref.options["shape"]
    return depth, height, width


def reader_of(
    ref: VisualRef, root: Path, read_file: Callable[[VisualRef, Path], Visual]
) -> tuple[Path, Callable[..., Visual]]:
    """The shard, and a reader of the member that needs no further arguments (and passes over those it gets)."""
    return root / ref.path, lambda *_, **__: read(ref, root, read_file)


def read(ref: VisualRef, root: Path, read_file: Callable[[VisualRef, Path], Visual]) -> Visual:
    """Read the byte range, compare its CRC-32 with the one of the build, and make the visual.

    Args:
        read_file: reads a file by its content; for members that are stored as their source was.

    Raises:
        BadSample: the range is torn or changed, or what is stored cannot be read; names shard and member.
        ConnectionError: a remote storage that keeps failing.
    """
    place = ref.path if is_url(ref.path) else str(root / ref.path)
    where = f"{place}::{ref.options['member']}"
    unknown = {name for name in PLACE if name != "url"} - set(ref.options)
    if unknown:
        raise BadSample(f"options.{min(unknown)} is missing", where=where, mend="take rows from ShardSet.row")
    data = member_bytes(place, ref.options, where)
    rest = {name: value for name, value in ref.options.items() if name not in PLACE}
    if ref.options["stored"] == "array":
        try:
            return from_array(array_in(data), ref.kind, rest)
        except (ValueError, TypeError, KeyError) as error:
            raise BadSample(f"no {ref.kind} as a shard stores it: {error}", where=where, mend=_MEND) from error
    return _from_source(data, replace(ref, options=rest), where, read_file)


def member_bytes(place: str, options: dict[str, Any], where: str) -> bytearray:
    """The bytes of a member, checked.

    Raises:
        BadSample: as :func:`read`.
    """
    offset, size = options["offset"], options["size"]
    try:
        data = read_range(place, offset, size)
    except FileNotFoundError as error:
        if "url" not in options:
            raise BadSample("no such shard", where=where, mend="correct the path or fetch the shard") from error
        # The cache has dropped its copy since the row was made.
        data = read_range(options["url"], offset, size)
    if len(data) < size:
        raise BadSample(f"the shard is torn: {len(data)} of {size} bytes are there", where=where, mend=_MEND)
    if zlib.crc32(data) != options["crc32"]:
        raise BadSample(f"{size} bytes at {offset} have changed since the shard was built", where=where, mend=_MEND)
    return data


def _from_source(data: bytearray, ref: VisualRef, where: str, read_file: Callable[[VisualRef, Path], Visual]) -> Visual:
    """Readers take files: memory is one where the system has a file system in memory."""
    memory = Path("/dev/shm")
    folder = memory if os.access(memory, os.W_OK) else None
    with tempfile.NamedTemporaryFile(dir=folder, prefix="medvlm-member-") as file:
        file.write(data)
        file.flush()
        try:
            return read_file(replace(ref, path=file.name, sha256=None), Path("/"))
        except BadSample as bad:
            raise BadSample(bad.reason, where=where, mend=bad.mend) from bad
