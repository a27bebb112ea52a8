"""A visual in physical units -> 8-bit RGB pictures, as the image processors of the libraries take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from medvlm.model.external.settings import ExternalSettings
from medvlm.model.geometry import middles, resize_volume
from medvlm.model.intensity import to_channels
from medvlm.model.visual import Image, Video, Visual, Volume, kind_of

Shown = Literal["image", "slices", "clip"]
"""One image; one image per slice or frame; or one clip."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What a family cuts into patches.

    Attributes:
        rgb: (n, H, W, 3) uint8, pixels square where the spacing is known; n is 1 for an image.
        shown: how they are given to the model.
        spacing: millimetres between the pictures (a clip and the frames of a video: seconds), and of a pixel along rows
            and columns; NaN where unknown.
    """

    rgb: np.ndarray
    shown: Shown
    spacing: tuple[float, float, float]


def pictures_of(visual: Visual, settings: ExternalSettings, *, has_clips: bool, frames_multiple: int) -> Pictures:
    """Window ``visual``, keep to the budget of slices or frames, make pixels square.

    A volume of which one slice is shown is an image.

    Args:
        has_clips: the family has a path for clips; without one, frames are shown as images.
        frames_multiple: a clip of more frames is cut down to a multiple of this.

    Raises:
        ValueError: volumes are wanted as clips and the family has none.
    """
    if isinstance(visual, Volume) and settings.volumes == "video" and not has_clips:
        raise ValueError("volumes: video, but this family has no path for clips; set volumes: slices")
    kind = kind_of(visual)
    depth, spacing = _depth_and_spacing(visual)
    clip = has_clips and (kind == "video" or (kind == "volume" and settings.volumes == "video"))
    count = 1 if kind == "image" else min(depth, settings.max_depth[kind])
    if clip and count > frames_multiple:
        count -= count % frames_multiple
    chosen = middles(depth, count)
    if isinstance(visual, Video):
        # Frame i is shown as lying at i times the step, so the first of each stretch is taken, not its middle.
        firsts = (np.arange(count) * depth / count).astype(int)
        visual, chosen = _only(visual, firsts), np.arange(count)
    channels = to_channels(visual, settings.rule)  # (3, D, H, W) in [0, 1]
    if isinstance(visual, Volume) and settings.slices == "average" and count < depth:
        channels = np.stack([resize_volume(channel, (count, *channel.shape[1:])) for channel in channels])
    else:
        channels = channels[:, chosen]
    channels, plane = _square(channels, (spacing[1], spacing[2]))
    step = spacing[0] * depth / count
    if kind == "volume" and clip:
        # Unknown spacing: two slices a second, the rate at which these families saw clips.
        step = step / settings.second_in_mm if np.isfinite(step) else 0.5
    rgb = np.ascontiguousarray((channels * 255.0).round().astype(np.uint8).transpose(1, 2, 3, 0))
    if kind == "image" or (kind == "volume" and count == 1):
        return Pictures(rgb=rgb, shown="image", spacing=(float("nan"), *plane))
    return Pictures(rgb=rgb, shown="clip" if clip else "slices", spacing=(step, *plane))


def _depth_and_spacing(visual: Visual) -> tuple[int, tuple[float, float, float]]:
    unknown = (float("nan"), float("nan"))
    match visual:
        case Image():
            return 1, (float("nan"), *(visual.spacing_mm or unknown))
        case Volume():
            return len(visual.voxels), visual.spacing_mm or (float("nan"), *unknown)
        case Video():
            gap = float(visual.times_s[-1] - visual.times_s[0]) / max(1, len(visual.times_s) - 1)
            return len(visual.frames), (gap or 0.5, *(visual.spacing_mm or unknown))
    raise TypeError(f"expected an Image, Volume or Video, got {type(visual).__name__}")


def _only(video: Video, chosen: np.ndarray) -> Video:
    return Video(
        frames=np.ascontiguousarray(video.frames[chosen]),
        times_s=video.times_s[chosen],
        modality=video.modality,
        spacing_mm=video.spacing_mm,
    )


def _square(channels: np.ndarray, plane: tuple[float, float]) -> tuple[np.ndarray, tuple[float, float]]:
    """Resample the coarser axis to the finer: the libraries know no spacing and would show a squeezed patient."""
    fine = min(plane)
    if not np.isfinite(fine) or max(plane) <= 1.01 * fine:
        return channels, plane
    depth = channels.shape[1]
    height, width = (round(length * mm / fine) for length, mm in zip(channels.shape[2:], plane, strict=True))
    return np.stack([resize_volume(channel, (depth, height, width)) for channel in channels]), (fine, fine)
