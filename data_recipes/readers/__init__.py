"""Readers: a file or a folder of DICOM slices to an Image, a Volume or a Video."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers import clip, dicom, nifti, numpy_archive, numpy_array, picture, shard_member
from medvlm.data_recipes.readers.content import Format, format_of, head_of
from medvlm.data_recipes.sample import VisualRef
from medvlm.model.visual import Kind, Visual, kind_of

__all__ = ["read", "reader_of", "require_kind", "sniff"]

Reader = Callable[..., Any]

_NOT_OPTIONS = ("path", "source", "at_least")
"""Arguments of readers that the caller gives, never a manifest."""


def sniff(path: Path) -> Kind | None:
    """What a file is, or a folder of DICOM slices, told from content and headers; None when it is no visual.

    A 4D NIfTI is a volume (of which options.time_index must choose one), a multi-page TIFF and an animated GIF an
    image. A damaged file is named by what its header claims; reading it then tells what is wrong.

    Raises:
        BadSample: the path does not exist, or a DICOM header is damaged.
    """
    path = Path(path)
    _require_exists(path)
    if path.is_dir():
        return dicom.kind_of_folder(path)
    match format_of(path):
        case "picture":
            return "image"
        case "clip":
            return "video"
        case "nifti":
            return "volume"
        case "array":
            return numpy_array.kind_of_file(path)
        case "archive":
            return None  # a container: a manifest names the member and the item
        case "dicom":
            return dicom.kind_of_file(path)
    return None


def read(ref: VisualRef, root: Path) -> Visual:
    """Read what a manifest names.

    The reader is chosen by the content of the file; ``ref.options`` are its keyword arguments (see
    medvlm.data_recipes.readers.picture.read, dicom.read_file, dicom.read_series, dicom.read_cine, nifti.read,
    numpy_array.read, numpy_archive.read, clip.read). An option that the reader does not know is refused.

    Args:
        ref: kind, path and options.
        root: folder against which a relative path stands.

    Raises:
        BadSample: missing, empty, damaged or unknown file, a kind other than ``ref.kind``, an unknown option, and
            what the reader refuses.
    """
    path, reader = reader_of(ref, root)
    return require_kind(reader(path, **ref.options), ref, path)


def reader_of(ref: VisualRef, root: Path) -> tuple[Path, Reader]:
    """The file, and the function that reads it as ``ref.kind``; nothing but the first bytes is read.

    Raises:
        BadSample: missing, empty or unknown file, a folder that is no volume, or an unknown option.
    """
    if shard_member.is_member(ref):
        return shard_member.reader_of(ref, Path(root), read)
    path = Path(root) / ref.path
    _require_exists(path)
    reader = _reader_of(ref, path)
    if ref.options:
        allowed = [name for name in inspect.signature(reader).parameters if name not in _NOT_OPTIONS]
        unknown = sorted(set(ref.options) - set(allowed))
        if unknown:
            raise BadSample(
                f"options.{unknown[0]} means nothing for this {ref.kind}",
                where=str(path),
                mend=f"remove it, or use one of: {', '.join(allowed) or '(none)'}",
            )
    return path, reader


def require_kind(visual: Visual, ref: VisualRef, path: Path) -> Visual:
    """``visual``, when it is what the manifest says it is.

    Raises:
        BadSample: it is of another kind.
    """
    if kind_of(visual) != ref.kind:
        raise BadSample(
            f"the file is of kind {kind_of(visual)}, but the manifest says {ref.kind}",
            where=str(path),
            mend=f"write the type {kind_of(visual)!r} into the manifest, or choose a frame where there are several",
        )
    return visual


def _require_exists(path: Path) -> None:
    if not path.exists():
        raise BadSample("no such file", where=str(path), mend="correct the path or fetch the file")


def _reader_of(ref: VisualRef, path: Path) -> Reader:
    """The function that reads ``path`` as ``ref.kind``."""
    if path.is_dir():
        if ref.kind != "volume":
            raise BadSample(
                f"a folder, but the manifest says {ref.kind}", where=str(path), mend="name one file in the folder"
            )
        return dicom.read_series
    if path.stat().st_size == 0:
        raise BadSample("the file is empty (0 bytes)", where=str(path), mend="copy it again from its source")
    found: Format | None = format_of(path)
    if found is None:
        raise BadSample(
            f"no picture, DICOM, NIfTI, .npy, .npz or video, going by its content (first bytes {head_of(path)[:4]!r})",
            where=str(path),
            mend="give a file of one of these formats; the extension is not looked at",
        )
    if found == "clip" or (found == "picture" and ref.kind == "video"):
        return clip.read
    if found == "dicom":
        return dicom.read_cine if ref.kind == "video" else dicom.read_file
    if found == "nifti":
        return nifti.read
    if found == "archive":
        return numpy_archive.read
    return numpy_array.read if found == "array" else picture.read
