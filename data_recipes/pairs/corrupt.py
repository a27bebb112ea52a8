"""Visuals that no longer show what the text says: noise in place of the scan, noise over it, its middle taken out.

Size, unit, spacing and orientation stay, so that both sides of a pair cost the same and a model cannot tell them apart
by anything but what is shown.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medvlm.data_recipes.grounding import Box, voxels_of
from medvlm.model.visual import Image, Video, Visual, Volume

CENTRE = 0.7
"""Share of each axis in the plane that a crop without a known box blacks out: half of the area, where organs lie."""

MARGIN = 0.25
"""A known box is blacked out with this share of its size added on each side."""


def noised(visual: Visual, rng: np.random.Generator, std: float | None = None) -> Visual:
    """Gaussian noise of the visual's own mean and standard deviation; with ``std``, the visual with noise added.

    Standardised, pure noise has mean 0 and standard deviation 1, the ``rejected_noised`` image of MMed-RAG (Xia et al.
    2024); ``std`` is in the same measure, the standard deviation of the visual. Display values are clipped to [0, 1].
    """
    values = values_of(visual)
    scale = float(values.std()) or 1.0
    drawn = rng.standard_normal(values.shape, dtype=np.float32) * np.float32(scale)
    changed = values + np.float32(std) * drawn if std is not None else np.float32(values.mean()) + drawn
    return with_values(visual, changed)


def cropped(visual: Visual, box: Box | None = None) -> Visual:
    """The visual with ``box`` (enlarged by MARGIN), or the middle, set to its darkest value.

    The middle is CENTRE of rows and columns, through all slices and frames.
    """
    values = values_of(visual).copy()
    values[_place(values.shape, box)] = values.min()
    return with_values(visual, values)


def _place(shape: tuple[int, ...], box: Box | None) -> tuple[slice, ...]:
    """Where to black out an array of shape (..., H, W) or (D, H, W)."""
    everything = (slice(None),) * (len(shape) - 2)
    if box is None:
        sides = [(1 - CENTRE) / 2 * size for size in shape[-2:]]
        return everything + tuple(slice(int(gap), size - int(gap)) for gap, size in zip(sides, shape[-2:], strict=True))
    low, high = box.low, box.high
    grown = [(max(0.0, a - MARGIN * (b - a)), min(1.0, b + MARGIN * (b - a))) for a, b in zip(low, high, strict=True)]
    larger = type(box)(**dict(zip(_fields(box), [*(a for a, _ in grown), *(b for _, b in grown)], strict=True)))
    places = voxels_of(larger, shape[-len(low) :])
    return (slice(None),) * (len(shape) - len(low)) + places


def _fields(box: Box) -> tuple[str, ...]:
    return tuple(type(box).__dataclass_fields__)


def values_of(visual: Visual) -> np.ndarray:
    """(C, H, W), (D, H, W) or (T, C, H, W) float32."""
    match visual:
        case Image():
            return visual.pixels
        case Volume():
            return visual.voxels
        case Video():
            return visual.frames
    raise TypeError(f"expected an Image, Volume or Video, got {type(visual).__name__}")


def with_values(visual: Visual, values: np.ndarray) -> Visual:
    """``visual`` with other numbers of the same shape; display values are clipped."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    match visual:
        case Image():
            return replace(visual, pixels=np.clip(values, 0, 1) if visual.unit == "display" else values)
        case Volume():
            return replace(visual, voxels=np.clip(values, 0, 1) if visual.unit == "display" else values)
        case Video():
            return replace(visual, frames=np.clip(values, 0, 1))
    raise TypeError(f"expected an Image, Volume or Video, got {type(visual).__name__}")
