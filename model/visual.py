"""Image, Volume and Video: arrays that keep what a scanner measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Unit = Literal["HU", "SUV", "display", "arbitrary"]
Kind = Literal["image", "volume", "video"]

CANONICAL_ORIENTATION = "SPL"
"""Axis 0 runs towards Superior, axis 1 towards Posterior, axis 2 towards the patient's Left: slice [k] shown
with row 0 on top and column 0 on the left is an upright axial picture in the radiological convention (the
patient's right is on the viewer's left)."""


def all_finite(array: np.ndarray) -> bool:
    """Whether ``array`` holds neither NaN nor infinity.

    The sum of finite numbers is finite unless it overflows: one pass, and a mask only in doubt.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(array.sum()) or np.isfinite(array).all())


def _check_array(name: str, array: np.ndarray, ndim: int) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        kind = getattr(array, "dtype", type(array).__name__)
        raise ValueError(f"{name} must be a float32 numpy array, got {kind}; use array.astype(np.float32)")
    if array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, got shape {array.shape}")
    if 0 in array.shape:
        raise ValueError(f"{name} is empty: shape {array.shape}")
    if not all_finite(array):
        count = int((~np.isfinite(array)).sum())
        raise ValueError(
            f"{name} holds {count} NaN or infinite values of {array.size}; repair the file or leave it out"
        )


def _check_spacing(spacing: tuple[float, ...] | None, length: int) -> None:
    if spacing is None:
        return
    if len(spacing) != length or not all(np.isfinite(s) and s > 0 for s in spacing):
        raise ValueError(
            f"spacing_mm must be {length} positive millimetres in axis order, or None when unknown; got {spacing}"
        )


@dataclass(frozen=True, kw_only=True)
class Image:
    """A 2D picture.

    Attributes:
        pixels: (C, H, W) float32; C is 1 (grey) or 3 (RGB). In [0, 1] when ``unit`` is "display", else physical.
        modality: "CR", "DX", "CT", "MR", "US", "photo", ... as DICOM names it where it does; "unknown" otherwise.
        spacing_mm: (row, column) millimetres, or None when unknown: never a made-up 1.
        unit: what the numbers are.
        orientation: two letters, where axis 0 (rows) and axis 1 (columns) run to, of the patient's
            R/L, A/P, S/I; "IL" is an upright frontal radiograph. None when unknown.
        window: (low, high) in ``unit`` that the file asks for (VOI); None when it asks for none.
        full_size: (H, W) of the picture in the file, when it was decoded at a smaller scale; None otherwise. Budgets
            are about this size, so that a picture costs the same however it was decoded.
        scale: rows, and columns, of the file that became one; the last row and column may stand for fewer.
    """

    pixels: np.ndarray
    modality: str
    unit: Unit
    spacing_mm: tuple[float, float] | None = None
    orientation: str | None = None
    window: tuple[float, float] | None = None
    full_size: tuple[int, int] | None = None
    scale: int = 1

    def __post_init__(self) -> None:
        _check_array("Image.pixels", self.pixels, 3)
        if self.pixels.shape[0] not in (1, 3):
            raise ValueError(f"Image.pixels must be (C, H, W) with C 1 or 3, got shape {self.pixels.shape}")
        _check_spacing(self.spacing_mm, 2)


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A 3D scan in physical units.

    Attributes:
        voxels: (D, H, W) float32 in ``unit``.
        modality: "CT", "MR", "PT", ...; "unknown" otherwise.
        spacing_mm: (D, H, W) millimetres, or None when unknown.
        unit: "HU" for CT.
        orientation: where axes 0, 1, 2 run to, of the patient's R/L, A/P, S/I; readers return
            CANONICAL_ORIENTATION whenever the file states its geometry. None when unknown.
        window: (low, high) in ``unit`` that the file asks for (VOI); None when it asks for none.
    """

    voxels: np.ndarray
    modality: str
    unit: Unit
    spacing_mm: tuple[float, float, float] | None = None
    orientation: str | None = None
    window: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _check_array("Volume.voxels", self.voxels, 3)
        _check_spacing(self.spacing_mm, 3)


@dataclass(frozen=True, kw_only=True)
class Video:
    """Frames in time.

    Attributes:
        frames: (T, C, H, W) float32 in [0, 1]; C is 1 or 3.
        times_s: (T,) float64 seconds, strictly increasing.
        modality: "US", "endoscopy", ...; "unknown" otherwise.
        spacing_mm: (row, column) millimetres, or None when unknown.
    """

    frames: np.ndarray
    times_s: np.ndarray
    modality: str
    spacing_mm: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _check_array("Video.frames", self.frames, 4)
        if self.frames.shape[1] not in (1, 3):
            raise ValueError(f"Video.frames must be (T, C, H, W) with C 1 or 3, got shape {self.frames.shape}")
        if self.times_s.shape != (len(self.frames),) or (np.diff(self.times_s) <= 0).any():
            raise ValueError(
                f"Video.times_s must hold one strictly increasing second per frame: {len(self.frames)} frames, "
                f"times {self.times_s.tolist()[:8]}"
            )
        _check_spacing(self.spacing_mm, 2)


Visual = Image | Volume | Video


def check_per_kind(name: str, values: Mapping[str, int]) -> None:
    """Raise ValueError unless the setting ``name`` holds whole numbers of at least 1, by kind of visual."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{name} is {values!r}; write numbers per kind, such as {{volume: 32}}")
    unknown = set(values) - set(get_args(Kind))
    if unknown:
        raise ValueError(f"{name} has unknown kinds {sorted(unknown)}; use {', '.join(get_args(Kind))}")
    wrong = {kind: value for kind, value in values.items() if type(value) is not int or value < 1}
    if wrong:
        raise ValueError(f"{name} must hold whole numbers of at least 1, got {wrong}")


def kind_of(visual: Visual) -> Kind:
    """Name the kind of ``visual`` as manifests and chat messages spell it."""
    match visual:
        case Image():
            return "image"
        case Volume():
            return "volume"
        case Video():
            return "video"
    raise TypeError(f"expected an Image, Volume or Video, got {type(visual).__name__}")
