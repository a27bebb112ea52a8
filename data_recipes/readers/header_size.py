"""The size of a visual, told by the file's header: what a loader needs to plan without decoding anything."""

from __future__ import annotations

from pathlib import Path

from medvlm.data_recipes.readers import dicom, nifti, numpy_archive, numpy_array, picture, reader_of, shard_member
from medvlm.data_recipes.readers.dicom_header import frame_count, open_dataset, require_pixels
from medvlm.data_recipes.readers.refusals import index_option
from medvlm.data_recipes.sample import VisualRef


def header_size(ref: VisualRef, root: Path) -> tuple[int, int, int] | None:
    """(depth, height, width) in voxels of what ``read(ref, root)`` would return, after the reader's own turning.

    Nothing but headers is read, so a file whose pixels are damaged has a size too.

    Args:
        ref: kind, path and options.
        root: folder against which a relative path stands.

    Returns:
        The size, depth 1 for an image; None where a header alone does not tell: a folder of DICOM slices, a DICOM file
        read as a volume, a video, a file that is of another kind than ``ref.kind``.

    Raises:
        BadSample: missing, empty, unknown or damaged file, an unknown or malformed option.
    """
    if shard_member.is_member(ref):
        return shard_member.header_size(ref)
    path, reader = reader_of(ref, root)
    if reader is picture.read and ref.kind == "image":
        return picture.header_size(path, **ref.options)
    if reader is nifti.read and ref.kind == "volume":
        return nifti.header_size(path, **ref.options)
    if reader is numpy_array.read and numpy_array.kind_of_file(path) == ref.kind:
        return numpy_array.header_size(path, **ref.options)
    if reader is numpy_archive.read and numpy_archive.kind_of_item(path, **ref.options) == ref.kind:
        return numpy_archive.header_size(path, **ref.options)
    if reader is dicom.read_file and ref.kind == "image":
        return _dicom_size(path, ref.options.get("frame"))
    return None


def _dicom_size(path: Path, frame: object) -> tuple[int, int, int] | None:
    dataset = open_dataset(path, pixels=False)
    require_pixels(dataset, path)
    count = frame_count(dataset)
    if frame is None and count > 1:
        return None
    if frame is not None:
        index_option("frame", frame, count, path)
    return 1, int(dataset.Rows), int(dataset.Columns)
