"""Physical units -> channels in [0, 1]: per visual, never per slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medvlm.model.visual import Image, Video, Visual, Volume

Window = tuple[float, float]

HU_WINDOWS: dict[str, Window] = {
    "wide": (-1024.0, 1024.0),
    "lung": (-1350.0, 150.0),
    "soft_tissue": (-135.0, 215.0),
    "brain": (0.0, 80.0),
    "bone": (-500.0, 1300.0),
}
"""(low, high) in HU. "wide", "soft_tissue" and "brain" are MedGemma's three channels (model card, 2025)."""


@dataclass(frozen=True, kw_only=True)
class IntensityRule:
    """How physical units become channels; kept in the processor's config, so that inference equals training.

    Attributes:
        hu_windows: three names of HU_WINDOWS or (low, high) pairs: the channels of a CT.
    """

    hu_windows: Sequence[str | Sequence[float]] = ("lung", "soft_tissue", "bone")

    def __post_init__(self) -> None:
        if len(self.hu_windows) != 3:
            raise ValueError(f"hu_windows must name three channels, got {list(self.hu_windows)}")
        unknown = [w for w in self.hu_windows if isinstance(w, str) and w not in HU_WINDOWS]
        if unknown:
            raise ValueError(f"unknown HU windows {unknown}; use {sorted(HU_WINDOWS)} or pairs such as [-1000, 400]")

    @property
    def windows(self) -> tuple[Window, ...]:
        """The three windows in HU."""
        return tuple(HU_WINDOWS[w] if isinstance(w, str) else (float(w[0]), float(w[1])) for w in self.hu_windows)


def apply_window(values: np.ndarray, window: Window) -> np.ndarray:
    """Map ``window`` linearly to [0, 1] and clip what lies outside."""
    low, high = window
    if not high > low:
        raise ValueError(f"a window needs low < high, got {window}")
    return ((values - low) / (high - low)).clip(0.0, 1.0).astype(np.float32)


def percentile_window(values: np.ndarray, low: float = 0.5, high: float = 99.5) -> Window:
    """The window between two percentiles of all values; a constant visual gets a window of width 1."""
    bottom, top = (float(v) for v in np.percentile(values, [low, high]))
    return (bottom, top) if top > bottom else (bottom, bottom + 1.0)


def to_channels(visual: Visual, rule: IntensityRule) -> np.ndarray:
    """Return ``visual`` as (3, D, H, W) float32 in [0, 1].

    HU goes through the three windows of ``rule``, one a channel; any other physical unit through the file's own window,
    else through its 0.5 and 99.5 percentiles; what is already for display stays. Grey fills three channels alike.

    Args:
        visual: an image has D 1; a video has D frames.
        rule: of the processor.
    """
    match visual:
        case Video():
            channels = visual.frames.transpose(1, 0, 2, 3)
        case Image(unit="display"):
            channels = visual.pixels[:, None]
        case Image(unit="HU") | Volume(unit="HU"):
            grey = visual.pixels[0][None] if isinstance(visual, Image) else visual.voxels
            return np.stack([apply_window(grey, window) for window in rule.windows])
        case Image():
            window = visual.window or percentile_window(visual.pixels)
            channels = apply_window(visual.pixels, window)[:, None]
        case Volume():
            window = visual.window or percentile_window(visual.voxels)
            channels = apply_window(visual.voxels, window)[None]
        case _:
            raise TypeError(f"expected an Image, Volume or Video, got {type(visual).__name__}")
    return np.repeat(channels, 3, axis=0) if channels.shape[0] == 1 else channels
