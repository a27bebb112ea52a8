"""At which size visuals are stored: never above the source, the whole field of view, spacing following."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from medvlm.model.geometry import resize_image, resize_volume
from medvlm.model.visual import Image, Kind, Video, Visual, Volume


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """Limits; a kind without a limit is stored as its source is. Nothing is enlarged.

    Attributes:
        image_side: longest side of an image, in pixels.
        picture_pixels: most pixels (rows x columns) of an image, and of a frame of a video.
        volume_size: most voxels along (D, H, W).
        volume_spacing_mm: millimetres between voxels along (D, H, W); an axis that is coarser stays as it is.
        video_frames: most frames, evenly over the clip, first and last kept.
        video_side: longest side of a frame, in pixels.
    """

    image_side: int | None = None
    picture_pixels: int | None = None
    volume_size: tuple[int, int, int] | None = None
    volume_spacing_mm: tuple[float, float, float] | None = None
    video_frames: int | None = None
    video_side: int | None = None

    def limits(self, kind: Kind) -> bool:
        """Whether anything is asked of visuals of ``kind``."""
        asked = {
            "image": (self.image_side, self.picture_pixels),
            "volume": (self.volume_size, self.volume_spacing_mm),
            "video": (self.video_frames, self.video_side, self.picture_pixels),
        }
        return any(limit is not None for limit in asked[kind])

    def to_dict(self) -> dict[str, Any]:
        """The limits that are set, JSON-ready."""
        return {name: value for name, value in asdict(self).items() if value is not None}


_FORMS = {
    "image": re.compile(r"(?P<side>\d+)"),
    "volume": re.compile(r"(?P<size>\d+x\d+x\d+)|(?P<spacing>[\d.]+x[\d.]+x[\d.]+)mm"),
    "video": re.compile(r"(?P<frames>\d+)(?:x(?P<side>\d+))?"),
}


def parse_resolution(sizes: Sequence[str], max_pixels: int | None = None) -> Resolution:
    """``source``, or image=SIDE, volume=DxHxW or volume=DxHxWmm, video=FRAMES or video=FRAMESxSIDE.

    Raises:
        ValueError: nothing is asked for, or a form that is none of these.
    """
    if not sizes and max_pixels is None:
        raise ValueError("say at which size visuals are stored: --size source, --size image=512 ..., or --max-pixels N")
    if max_pixels is not None and max_pixels < 1:
        raise ValueError(f"--max-pixels is {max_pixels}; use a whole number of at least 1")
    resolution = Resolution(picture_pixels=max_pixels)
    if list(sizes) == ["source"]:
        return resolution
    for text in sizes:
        kind, _, form = text.partition("=")
        match = _FORMS[kind].fullmatch(form) if kind in _FORMS else None
        numbers = [float(n) for n in re.findall(r"[\d.]+", form)] if match and form.count("..") == 0 else []
        if match is None or not numbers or min(numbers) <= 0:
            raise ValueError(
                f"--size {text!r} is none of source, image=SIDE, volume=DxHxW, volume=AxBxCmm, video=FRAMES[xSIDE]"
            )
        if kind == "image":
            resolution = replace(resolution, image_side=int(numbers[0]))
        elif kind == "video":
            side = int(numbers[1]) if match["side"] else None
            resolution = replace(resolution, video_frames=int(numbers[0]), video_side=side)
        elif match["size"]:
            resolution = replace(resolution, volume_size=tuple(int(n) for n in numbers))  # type: ignore[arg-type]
        else:
            resolution = replace(resolution, volume_spacing_mm=tuple(numbers))  # type: ignore[arg-type]
    return resolution


def picture_size(height: int, width: int, side: int | None, pixels: int | None) -> tuple[int, int]:
    """(rows, columns) within both limits, aspect ratio kept to the pixel."""
    if side is not None and max(height, width) > side:
        scale = side / max(height, width)
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
    if pixels is not None and height * width > pixels:
        scale = math.sqrt(pixels / (height * width))
        height = min(max(1, math.floor(height * scale)), pixels)
        width = min(max(1, math.floor(width * scale)), pixels // height)
    return height, width


def volume_size(volume: Volume, resolution: Resolution) -> tuple[int, int, int]:
    """(D, H, W) within the limits.

    Raises:
        ValueError: millimetres are asked for, but the volume's spacing is unknown.
    """
    size = list(volume.voxels.shape)
    if resolution.volume_spacing_mm is not None:
        if volume.spacing_mm is None:
            raise ValueError("millimetres are asked for, but the spacing of the volume is unknown")
        for axis, (old, new) in enumerate(zip(volume.spacing_mm, resolution.volume_spacing_mm, strict=True)):
            size[axis] = min(size[axis], max(1, round(size[axis] * old / new)))
    if resolution.volume_size is not None:
        size = [min(n, most) for n, most in zip(size, resolution.volume_size, strict=True)]
    return size[0], size[1], size[2]


def _scaled(spacing: tuple[float, ...] | None, old: Sequence[int], new: Sequence[int]) -> Any:
    if spacing is None:
        return None
    return tuple(s * before / after for s, before, after in zip(spacing, old, new, strict=True))


def resample(visual: Visual, resolution: Resolution) -> Visual:
    """``visual`` within the limits by model.geometry (area average); the same object when it is within already.

    Frames of a video are chosen, never averaged, and keep their times. Unit, window and orientation stay; spacing is
    scaled so that the field of view is the same.

    Raises:
        ValueError: see :func:`volume_size`.
    """
    match visual:
        case Image():
            old = (visual.pixels.shape[1], visual.pixels.shape[2])
            new = picture_size(*old, resolution.image_side, resolution.picture_pixels)
            if new == old:
                return visual
            return replace(
                visual, pixels=resize_image(visual.pixels, new), spacing_mm=_scaled(visual.spacing_mm, old, new)
            )
        case Volume():
            size = volume_size(visual, resolution)
            if size == visual.voxels.shape:
                return visual
            spacing = _scaled(visual.spacing_mm, visual.voxels.shape, size)
            return replace(visual, voxels=resize_volume(visual.voxels, size), spacing_mm=spacing)
        case Video():
            return _resample_video(visual, resolution)


def _resample_video(video: Video, resolution: Resolution) -> Video:
    frames, times = video.frames, video.times_s
    if resolution.video_frames is not None and len(frames) > resolution.video_frames:
        count = resolution.video_frames
        chosen = [len(frames) // 2] if count == 1 else np.linspace(0, len(frames) - 1, count).round().astype(int)
        frames, times = frames[chosen], times[chosen]
    old = (frames.shape[2], frames.shape[3])
    new = picture_size(*old, resolution.video_side, resolution.picture_pixels)
    if new == old and len(frames) == len(video.frames):
        return video
    frames = np.ascontiguousarray(resize_image(frames, new) if new != old else frames)
    return replace(video, frames=frames, times_s=times, spacing_mm=_scaled(video.spacing_mm, old, new))
