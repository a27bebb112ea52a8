"""Changed visuals on disk: lossless files that our readers read back with unit, spacing, orientation and times kept."""

from __future__ import annotations

import hashlib
import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image as Picture

from medvlm.data_recipes.manifest import sha256_of
from medvlm.data_recipes.sample import VisualRef
from medvlm.data_recipes.whole_file import writing
from medvlm.model.intensity import apply_window
from medvlm.model.visual import Image, Video, Visual, Volume, kind_of

MILLISECOND = Fraction(1, 1000)


def write_visual(visual: Visual, folder: Path, name: str, relative_to: Path) -> VisualRef:
    """Write ``visual`` as ``folder``/``name`` and an extension, whole or not at all; a file that is there is kept.

    A display image becomes PNG, other images and volumes NPY, a clip FFV1 in Matroska. The same numbers give the same
    bytes. Arbitrary units with a window of the file are written as that window shows them, because NPY and PNG cannot
    hold a window. HU are rounded to whole numbers, display values of images and clips to 8 bits.

    Returns:
        its VisualRef, with a path relative to ``relative_to`` and the sha256 of the file.
    """
    visual = _windowed(visual)
    suffix = _suffix(visual)
    path = folder / f"{name}{suffix}"
    if not path.exists():
        _put(path, _encoded(visual, suffix))
    return VisualRef(
        kind=kind_of(visual), path=path.relative_to(relative_to).as_posix(), sha256=sha256_of(path),
        options=_options(visual, suffix),
    )  # fmt: skip


def _windowed(visual: Visual) -> Visual:
    if isinstance(visual, Video) or visual.window is None or visual.unit != "arbitrary":
        return visual
    shared: dict[str, Any] = {
        "modality": visual.modality, "unit": "display", "spacing_mm": visual.spacing_mm,
        "orientation": visual.orientation,
    }  # fmt: skip
    if isinstance(visual, Image):
        return Image(pixels=apply_window(visual.pixels, visual.window), **shared)
    return Volume(voxels=apply_window(visual.voxels, visual.window), **shared)


def _suffix(visual: Visual) -> str:
    if isinstance(visual, Video):
        return ".mkv"
    return ".png" if isinstance(visual, Image) and visual.unit == "display" else ".npy"


def _options(visual: Visual, suffix: str) -> dict[str, Any]:
    options: dict[str, Any] = {} if visual.modality == "unknown" else {"modality": visual.modality}
    if visual.spacing_mm is not None:
        options["spacing_mm"] = list(visual.spacing_mm)
    if isinstance(visual, Video):
        options["max_frames"] = len(visual.frames)
    elif suffix == ".npy":
        options["unit"] = visual.unit
        if isinstance(visual, Volume) and visual.orientation is not None:
            options["orientation"] = visual.orientation
    return options


def _encoded(visual: Visual, suffix: str) -> bytes:
    buffer = io.BytesIO()
    if isinstance(visual, Video):
        return _mkv(visual)
    if isinstance(visual, Image) and suffix == ".png":
        Picture.fromarray(_eight_bits(visual.pixels)).save(buffer, format="PNG", compress_level=4)
        return buffer.getvalue()
    values = visual.pixels if isinstance(visual, Image) else visual.voxels
    if isinstance(visual, Image):
        values = values.mean(axis=0) if len(values) == 3 else values[0]  # NPY holds physical images of one channel
    if visual.unit == "HU":
        limits = np.iinfo(np.int16)
        values = np.clip(np.rint(values), limits.min, limits.max).astype(np.int16)
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    """(C, H, W) in [0, 1] -> (H, W) or (H, W, 3) uint8."""
    whole = np.rint(pixels * 255).astype(np.uint8)
    return whole[0] if len(whole) == 1 else np.ascontiguousarray(whole.transpose(1, 2, 0))


def _mkv(video: Video) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="matroska", options={"fflags": "+bitexact"}) as container:
        grey = video.frames.shape[1] == 1
        stream = container.add_stream("ffv1", rate=1000)
        if not isinstance(stream, av.VideoStream):
            raise TypeError(f"PyAV made a {type(stream).__name__} for the video codec ffv1")
        stream.height, stream.width = video.frames.shape[2:]
        stream.pix_fmt = "gray" if grey else "bgr0"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = MILLISECOND
        for pixels, second in zip(video.frames, video.times_s - video.times_s[0], strict=True):
            picture = av.VideoFrame.from_ndarray(_eight_bits(pixels), format="gray" if grey else "rgb24")
            picture = picture.reformat(format=stream.pix_fmt)
            picture.pts, picture.time_base = round(float(second) * 1000), MILLISECOND
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _put(path: Path, data: bytes) -> None:
    with writing(path) as file:
        file.write(data)


def visual_key(ref: VisualRef, *more: object) -> str:
    """16 hexadecimal digits that name what ``ref`` shows (content or path, and reader options) and ``more``."""
    words = f"{ref.kind}|{ref.sha256 or ref.path}|{sorted(ref.options.items())}|{more}"
    return hashlib.sha256(words.encode()).hexdigest()[:16]
