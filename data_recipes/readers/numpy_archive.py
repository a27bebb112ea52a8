"""NumPy .npz archives: one item of one member, such as picture 7 of ``train_images``, without reading the others.

A member that is stored (numpy.savez) is memory-mapped where it lies in the archive: reading one item costs the bytes
of that item. A member that is compressed (numpy.savez_compressed) has no beginning of item 7: the first item read by a
process unpacks the whole member once into an unnamed temporary file (in TMPDIR), which is memory-mapped from then on
and vanishes with the process. So a compressed archive costs every reading process the disk of its unpacked member;
``python -m medvlm.data_recipes.readers.numpy_archive ARCHIVE --out FILE`` stores it unpacked once instead.
Zip: PKWARE APPNOTE 6.3, section 4.3.7 (local file header); arrays: numpy.lib.format.
"""

from __future__ import annotations

import argparse
import mmap
import os
import shutil
import struct
import sys
import tempfile
import zipfile
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as numpy_format

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers.numpy_array import is_colour, size_of, visual_of
from medvlm.data_recipes.readers.refusals import decoding, index_option
from medvlm.data_recipes.whole_file import writing
from medvlm.model.visual import Image, Kind, Volume

MEND = "copy the archive again, or save it with numpy.savez(path, name=array)"
_ERRORS = (zipfile.BadZipFile, NotImplementedError, TokenError)
_LOCAL_HEADER = 30
"""Bytes of a local file header before the name; the lengths of name and extra field are its last two numbers."""


def read(
    path: Path,
    *,
    member: Any = None,
    item: Any = None,
    spacing_mm: Any = None,
    unit: Any = None,
    modality: str = "unknown",
    orientation: Any = None,
) -> Image | Volume:
    """Read one item of one member as numpy_array.read reads a .npy file.

    Args:
        path: the .npz file; pickled objects are never loaded.
        member: name of the array; an archive of one array needs none.
        item: which entry of its first axis, from 0; the whole array when not told.
        spacing_mm, unit, modality, orientation: as for a .npy file.

    Raises:
        BadSample: no archive of arrays, an unknown member, an item that is not there, and what numpy_array refuses.
    """
    array = member_of(path, member)
    if item is not None:
        array = array[index_option("item", item, len(array) if array.ndim else 0, path)]
    return visual_of(array, path, spacing_mm=spacing_mm, unit=unit, modality=modality, orientation=orientation)


def member_of(path: Path, member: Any = None) -> np.ndarray:
    """The array ``member`` of an archive, memory-mapped and read-only.

    Raises:
        BadSample: damaged, pickled, or no such member.
    """
    status = path.stat()
    return _mapped(str(path), status.st_size, status.st_mtime_ns, member if isinstance(member, str) else None)


def kind_of_item(path: Path, *, member: Any = None, item: Any = None, **_: Any) -> Kind:
    """What ``read`` would return, from the header of the member alone.

    Raises:
        BadSample: as ``read``, where the header already shows it.
    """
    shape, kind = _described(path, member, item)
    return "image" if len(shape) == 2 or is_colour(shape, kind) else "volume"


def header_size(
    path: Path, *, member: Any = None, item: Any = None, orientation: Any = None, **_: Any
) -> tuple[int, int, int]:
    """(D, H, W) of what ``read`` would return, from the header of the member alone; an image has D 1.

    Raises:
        BadSample: as ``read``, where the header already shows it.
    """
    shape, kind = _described(path, member, item)
    return size_of(shape, kind, path, orientation)


def _described(path: Path, member: Any, item: Any) -> tuple[tuple[int, ...], np.dtype]:
    status = path.stat()
    members = _headers(str(path), status.st_size, status.st_mtime_ns)
    shape, kind = members[_chosen(members, member, path)]
    if item is None:
        return shape, kind
    index_option("item", item, shape[0] if shape else 0, path)
    return shape[1:], kind


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every array, from the headers alone.

    Raises:
        BadSample: damaged.
    """
    status = path.stat()
    return {name: shape for name, (shape, _) in _headers(str(path), status.st_size, status.st_mtime_ns).items()}


@lru_cache(maxsize=64)
def _headers(name: str, size: int, changed: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    path, found = Path(name), {}
    with decoding(path, "a .npz archive of arrays", MEND, also=_ERRORS), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.endswith(".npy"):
                with archive.open(info) as stream:
                    shape, _, kind = _header(stream, path)
                    found[info.filename.removesuffix(".npy")] = shape, kind
    return found


@lru_cache(maxsize=128)
def _mapped(name: str, size: int, changed: int, member: str | None) -> np.ndarray:
    """Size and time of change are part of the key: a file that was written anew is read anew.

    A map costs no memory, and a mixture draws from many members in turn: all of MedMNIST has 54 arrays of images.
    """
    path = Path(name)
    with decoding(path, "a .npz archive of arrays", MEND, also=_ERRORS), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        info = members[_chosen(members, member, path)]
        if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
            with path.open("rb") as file:
                return _map(file, _data_offset(file, info), path)
        with tempfile.TemporaryFile(prefix="medvlm-npz-") as unpacked, archive.open(info) as packed:
            shutil.copyfileobj(packed, unpacked, 1 << 20)
            unpacked.flush()
            return _map(unpacked, 0, path)


def _chosen(members: Collection[str], member: Any, path: Path) -> str:
    if member is None and len(members) == 1:
        return next(iter(members))
    if not isinstance(member, str) or member not in members:
        raise BadSample(
            f"options.member is {member!r}, but the archive holds {', '.join(sorted(members)) or 'nothing'}",
            where=str(path),
            mend="name one of the arrays",
        )
    return member


def _data_offset(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored member begin: the local header may be longer than the central one says."""
    file.seek(info.header_offset)
    name, extra = struct.unpack("<HH", file.read(_LOCAL_HEADER)[26:30])
    return info.header_offset + _LOCAL_HEADER + name + extra


def _header(stream: IO[bytes], path: Path) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = numpy_format.read_magic(stream)
    read_header = numpy_format.read_array_header_1_0 if version == (1, 0) else numpy_format.read_array_header_2_0
    shape, fortran, kind = read_header(stream)
    if kind.hasobject:
        raise BadSample("the array holds pickled objects", where=str(path), mend="save numbers, not objects")
    return shape, fortran, kind


def _map(file: IO[bytes], offset: int, path: Path) -> np.ndarray:
    """The array whose .npy image begins at ``offset``; the map outlives the open file."""
    file.seek(offset)
    shape, fortran, kind = _header(file, path)
    begin, needed = file.tell(), int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    if os.fstat(file.fileno()).st_size < begin + needed:
        raise BadSample(f"the array of shape {shape} ends early", where=str(path), mend=MEND)
    if needed == 0:
        return np.zeros(shape, kind)
    page = begin - begin % mmap.ALLOCATIONGRANULARITY
    view = mmap.mmap(file.fileno(), begin - page + needed, access=mmap.ACCESS_READ, offset=page)
    return np.ndarray(shape, kind, view, begin - page, order="F" if fortran else "C")


def store(path: Path, out: Path) -> None:
    """Write the archive ``path`` as ``out`` with its members stored, byte for byte, so that they can be mapped.

    Raises:
        BadSample: ``path`` is damaged.
    """
    with (
        writing(out) as file,
        decoding(path, "a .npz archive of arrays", MEND, also=_ERRORS),
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as target,
    ):
        for info in source.infolist():
            with source.open(info) as packed, target.open(info.filename, "w", force_zip64=True) as stored:
                shutil.copyfileobj(packed, stored, 1 << 20)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m medvlm.data_recipes.readers.numpy_archive", description=__doc__)
    parser.add_argument("archive", type=Path, help="the compressed .npz file")
    parser.add_argument("--out", type=Path, required=True, help="the unpacked .npz file; may be the same name")
    options = parser.parse_args(arguments)
    try:
        store(options.archive, options.out)
    except (BadSample, OSError) as error:
        print(f"numpy_archive: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
