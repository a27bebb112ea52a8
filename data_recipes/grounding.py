"""Boxes: where something lies in an image or a volume, as fractions of the field of view and in millimetres.

Coordinates run along x, y, z in that order: x along the last array axis (columns), y along the rows, z along the
slices. In a volume as readers return it (CANONICAL_ORIENTATION) x grows towards the patient's Left, y towards Posterior
and z towards Superior; in a picture x grows to the right and y downwards as it is stored. Normalised coordinates are
fractions of the field of view, from the outer edge of the first voxel (0) to the outer edge of the last (1): voxel i of
n spans i/n to (i+1)/n. Resampling keeps the field of view, so a box needs no change when the processor resizes.
Millimetres are counted from the same first corner.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medvlm.model.visual import Image, Video, Visual, Volume

Numbers = tuple[float, ...]


def _check(low: Numbers, high: Numbers) -> None:
    if not all(math.isfinite(value) and 0 <= value <= 1 for value in (*low, *high)):
        raise ValueError(f"a box lies within 0 to 1 of the field of view, got {low} to {high}; divide by its size")
    if any(first >= last for first, last in zip(low, high, strict=True)):
        raise ValueError(f"a box needs its first corner before its last along every axis, got {low} to {high}")


@dataclass(frozen=True, kw_only=True)
class Box2D:
    """A rectangle in a picture or in every frame of a clip; fractions of the field of view, first corner first.

    Raises:
        ValueError: a number outside 0..1, or no extent along an axis.
    """

    x1: float
    y1: float
    x2: float
    y2: float

    def __post_init__(self) -> None:
        _check(self.low, self.high)

    @property
    def low(self) -> Numbers:
        """First corner, (x, y)."""
        return self.x1, self.y1

    @property
    def high(self) -> Numbers:
        """Last corner, (x, y)."""
        return self.x2, self.y2


@dataclass(frozen=True, kw_only=True)
class Box3D:
    """A cuboid in a volume; fractions of the field of view, first corner first.

    Raises:
        ValueError: a number outside 0..1, or no extent along an axis.
    """

    x1: float
    y1: float
    z1: float
    x2: float
    y2: float
    z2: float

    def __post_init__(self) -> None:
        _check(self.low, self.high)

    @property
    def low(self) -> Numbers:
        """First corner, (x, y, z)."""
        return self.x1, self.y1, self.z1

    @property
    def high(self) -> Numbers:
        """Last corner, (x, y, z)."""
        return self.x2, self.y2, self.z2


Box = Box2D | Box3D


def box_of(low: Sequence[float], high: Sequence[float]) -> Box:
    """The box between two corners of two or three coordinates.

    Raises:
        ValueError: corners of another or of different length, a number outside 0..1, no extent along an axis.
    """
    if len(low) != len(high) or len(low) not in (2, 3):
        raise ValueError(f"a box has two corners of two or three coordinates, got {tuple(low)} and {tuple(high)}")
    if len(low) == 2:
        return Box2D(x1=low[0], y1=low[1], x2=high[0], y2=high[1])
    return Box3D(x1=low[0], y1=low[1], z1=low[2], x2=high[0], y2=high[1], z2=high[2])


# --- arrays and millimetres ----------------------------------------------------------------------------------


def box_around(mask: np.ndarray) -> Box | None:
    """The smallest box of whole voxels around what is True; None when nothing is.

    Args:
        mask: (H, W) or (D, H, W) bool.
    """
    places = np.nonzero(mask)
    if not places[0].size:
        return None
    sizes = mask.shape[::-1]  # text order: x is the last array axis
    ends = [(int(axis.min()), int(axis.max()) + 1) for axis in places[::-1]]
    return box_of(
        [a / n for (a, _), n in zip(ends, sizes, strict=True)], [b / n for (_, b), n in zip(ends, sizes, strict=True)]
    )


def voxels_of(box: Box, size: Sequence[int]) -> tuple[slice, ...]:
    """Slices in array order, (rows, columns) or (slices, rows, columns), of every voxel that ``box`` touches.

    Args:
        size: of the array: voxels, or patches of a grid.

    Raises:
        ValueError: ``size`` has another number of axes than the box.
    """
    if len(size) != len(box.low):
        raise ValueError(f"a box of {len(box.low)} axes does not lie in an array of size {tuple(size)}")
    spans = zip(reversed(box.low), reversed(box.high), size, strict=True)
    # A corner that was an integer must stay one after dividing and multiplying.
    return tuple(slice(math.floor(a * n + 1e-6), math.ceil(b * n - 1e-6)) for a, b, n in spans)


def extent_mm(size: Sequence[int], spacing_mm: Sequence[float] | None) -> Numbers:
    """Field of view in millimetres along x, y(, z).

    Args:
        size: voxels in array order.
        spacing_mm: millimetres in array order; None where unknown.

    Raises:
        ValueError: the spacing is unknown, or of another number of axes.
    """
    if spacing_mm is None:
        raise ValueError(
            "the spacing is unknown, so a box has no millimetres; use normalised coordinates, or state spacing_mm"
        )
    if len(spacing_mm) != len(size):
        raise ValueError(f"{len(spacing_mm)} spacings for {len(size)} axes; give one per axis in array order")
    return tuple(float(n * step) for n, step in zip(reversed(size), reversed(spacing_mm), strict=True))


def extent_of(visual: Visual) -> Numbers:
    """Field of view of a visual in millimetres along x, y(, z).

    Raises:
        ValueError: its spacing is unknown.
    """
    match visual:
        case Image():
            return extent_mm(visual.pixels.shape[1:], visual.spacing_mm)
        case Volume():
            return extent_mm(visual.voxels.shape, visual.spacing_mm)
        case Video():
            return extent_mm(visual.frames.shape[2:], visual.spacing_mm)
    raise TypeError(f"expected an Image, Volume or Video, got {type(visual).__name__}")


def to_mm(box: Box, extent: Sequence[float]) -> Numbers:
    """Corners of ``box`` in millimetres from the first corner of the field of view: (x1, y1(, z1), x2, y2(, z2))."""
    steps = (*extent, *extent)
    return tuple(value * step for value, step in zip((*box.low, *box.high), steps, strict=True))


def from_mm(corners: Sequence[float], extent: Sequence[float]) -> Box:
    """The box whose corners lie at these millimetres; what :func:`to_mm` undoes.

    Raises:
        ValueError: another number of coordinates, or a box that leaves the field of view.
    """
    if len(corners) != 2 * len(extent):
        raise ValueError(f"{len(corners)} coordinates for a field of view of {len(extent)} axes")
    values = [value / step for value, step in zip(corners, (*extent, *extent), strict=True)]
    return box_of(values[: len(extent)], values[len(extent) :])


def iou(first: Box, second: Box) -> float:
    """Intersection over union, of areas or volumes; the same in normalised coordinates and in millimetres.

    Raises:
        ValueError: one box is flat, the other is not.
    """
    if len(first.low) != len(second.low):
        raise ValueError("a 2D and a 3D box have no common measure")
    shared = math.prod(
        max(0.0, min(a, b) - max(c, d))
        for a, b, c, d in zip(first.high, second.high, first.low, second.low, strict=True)
    )
    return shared / (_measure(first) + _measure(second) - shared)


def _measure(box: Box) -> float:
    return math.prod(last - first for first, last in zip(box.low, box.high, strict=True))


def centre_distance_mm(first: Box, second: Box, extent: Sequence[float]) -> float:
    """Millimetres between the centres of two boxes in a field of view of ``extent``."""
    gaps = (
        (a + b - c - d) / 2 * step
        for a, b, c, d, step in zip(first.low, first.high, second.low, second.high, extent, strict=True)
    )
    return math.sqrt(sum(gap * gap for gap in gaps))
