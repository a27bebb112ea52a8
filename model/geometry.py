"""Axes and grids of scans: reorient by permutation and flips, resize by area average or linear."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from medvlm.model.visual import CANONICAL_ORIENTATION, Volume

OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}
"""The six directions of the patient and what lies across."""

_AXIS_OF = {letter: axis for axis, pair in enumerate(("RL", "AP", "SI")) for letter in pair}


def axis_permutation_and_flips(
    orientation: str, to: str = CANONICAL_ORIENTATION
) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """How to turn an array with axes ``orientation`` into one with axes ``to``.

    Args:
        orientation: one letter per axis, where that axis runs to (R/L, A/P, S/I).
        to: the wanted letters, on the same body axes.

    Returns:
        (permutation, flips): ``array.transpose(permutation)``, then reverse each axis whose flip is True.

    Raises:
        ValueError: unknown letters, a body axis named twice, or the two codes are of different body axes.
    """
    for name, code in (("orientation", orientation), ("to", to)):
        if any(letter not in _AXIS_OF for letter in code) or len({_AXIS_OF[c] for c in code}) != len(code):
            raise ValueError(
                f"{name}={code!r} must name each body axis once with one of R/L, A/P, S/I; "
                f"write it as {CANONICAL_ORIENTATION!r} is written"
            )
    source = {_AXIS_OF[letter]: axis for axis, letter in enumerate(orientation)}
    if set(source) != {_AXIS_OF[letter] for letter in to}:
        raise ValueError(f"orientation {orientation!r} cannot become {to!r}: choose letters of the same body axes")
    permutation = tuple(source[_AXIS_OF[letter]] for letter in to)
    flips = tuple(orientation[axis] != letter for axis, letter in zip(permutation, to, strict=True))
    return permutation, flips


def reorient(volume: Volume, to: str = CANONICAL_ORIENTATION) -> Volume:
    """Permute and flip ``volume`` so that its axes run to ``to``; voxels are moved, never interpolated.

    An oblique volume keeps its own oblique grid: only the order and direction of its axes change.

    Raises:
        ValueError: ``volume.orientation`` is unknown, or either code is malformed.
    """
    if volume.orientation is None:
        raise ValueError(
            f"cannot reorient to {to!r}: the volume's orientation is unknown; state it (for example 'SPL') "
            "or use the volume as stored"
        )
    permutation, flips = axis_permutation_and_flips(volume.orientation, to)
    voxels = volume.voxels.transpose(permutation)
    voxels = voxels[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]
    spacing = volume.spacing_mm
    if spacing is not None:
        spacing = (spacing[permutation[0]], spacing[permutation[1]], spacing[permutation[2]])
    return replace(volume, voxels=np.ascontiguousarray(voxels), spacing_mm=spacing, orientation=to)


def orientation_of_directions(directions: np.ndarray) -> str | None:
    """Letters of the axes whose patient directions are the columns of ``directions``.

    Each array axis is given to the body axis nearest to it, best fit first, so that every body axis is used
    at most once (the rule of nibabel.orientations.io_orientation for orthogonal axes).

    Args:
        directions: (3, A) with A <= 3; column a is the direction of array axis a in DICOM patient coordinates
            (+x to the Left, +y to Posterior, +z to Superior), any positive length.

    Returns:
        A letters, or None when a direction is zero or not finite.
    """
    lengths = np.linalg.norm(directions, axis=0)
    if not np.isfinite(directions).all() or (lengths == 0).any():
        return None
    cosines = directions / lengths
    strength = np.abs(cosines)
    letters = [""] * directions.shape[1]
    for _ in letters:
        body, axis = np.unravel_index(int(np.argmax(strength)), strength.shape)
        letters[axis] = ("LR", "PA", "SI")[body][0 if cosines[body, axis] > 0 else 1]
        strength[body, :] = -1.0
        strength[:, axis] = -1.0
    return "".join(letters)


def middles(length: int, count: int) -> np.ndarray:
    """(count,) indices: the middle of each of ``count`` equal parts, so that length / count is their distance."""
    return ((np.arange(count) + 0.5) * length / count).astype(int)


@lru_cache(maxsize=256)
def taps_of(old: int, new: int, extent: float | None = None) -> tuple[Tensor, Tensor]:
    """Indices and weights, both (new, K), that resample an axis: exact area average or linear; not to be changed.

    Voxel centres are at half integers (align_corners=False), so that the field of view is kept: ``extent`` voxels from
    the first, which is all ``old`` of them unless the last is a part of one.
    """
    ratio = (old if extent is None else extent) / new
    out = torch.arange(new, dtype=torch.float64)
    if ratio > 1:
        low, high = out * ratio, (out + 1) * ratio
        indices = low.floor().long()[:, None] + torch.arange(math.ceil(ratio) + 1)
        overlap = torch.minimum(high[:, None], indices + 1.0) - torch.maximum(low[:, None], indices.double())
        weights = overlap.clamp(min=0)
    else:
        centre = ((out + 0.5) * ratio - 0.5).clamp(min=0)
        first = centre.floor().long()
        part = centre - first
        indices = torch.stack((first, first + 1), dim=1)
        weights = torch.stack((1 - part, part), dim=1)
    weights = weights / weights.sum(dim=1, keepdim=True)
    used = weights.any(dim=0)
    return indices.clamp(max=old - 1)[:, used], weights.float()[:, used]


def weighted(array: Tensor, axis: int, indices: Tensor, weights: Tensor) -> Tensor:
    """Resample one axis by the taps that ``taps_of`` gives, or some of their rows."""
    shape = [1] * array.ndim
    shape[axis] = len(indices)
    total = torch.mul(_chosen(array, axis, indices[:, 0]), weights[:, 0].view(shape))
    for tap in range(1, indices.shape[1]):
        total.addcmul_(_chosen(array, axis, indices[:, tap]), weights[:, tap].view(shape))
    return total


def _chosen(array: Tensor, axis: int, indices: Tensor) -> Tensor:
    """``array.index_select``, as a view where the indices are evenly spaced."""
    first, last, count = int(indices[0]), int(indices[-1]), len(indices)
    step = (last - first) // (count - 1) if count > 1 else 1
    if step < 1 or not torch.equal(indices, torch.arange(first, first + step * count, step)):
        return array.index_select(axis, indices)
    chosen = [slice(None)] * array.ndim
    chosen[axis] = slice(first, last + 1, step)
    return array[tuple(chosen)]


def resize_axis(array: Tensor, axis: int, new: int, extent: float | None = None) -> Tensor:
    """Resample one axis to ``new``; the result may be a transposed view."""
    taps = taps_of(array.shape[axis], new, extent)
    if axis != array.ndim - 1:
        return weighted(array.contiguous(), axis, *taps)
    # Choosing along the last axis moves single numbers; after a transposition, whole rows.
    return weighted(array.transpose(-1, -2).contiguous(), axis - 1, *taps).transpose(-1, -2)


def _resize(
    array: np.ndarray, axes: tuple[int, ...], size: tuple[int, ...], extent: tuple[float, ...] | None = None
) -> np.ndarray:
    if len(size) != len(axes) or any(int(n) != n or n < 1 for n in size):
        raise ValueError(f"size must be {len(axes)} whole numbers of at least 1, got {size}")
    tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    # The axis that shrinks most goes first: the others then have less to do.
    for axis, new in sorted(zip(axes, size, strict=True), key=lambda pair: pair[1] / array.shape[pair[0]]):
        field = None if extent is None else extent[axes.index(axis)]
        if tensor.shape[axis] != new or field not in (None, new):
            tensor = resize_axis(tensor, axis, int(new), field)
    return tensor.contiguous().numpy()


def resize_volume(voxels: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """Resample (D, H, W) to ``size``: each axis by exact area average when it shrinks, linear when it grows.

    The field of view is kept, so the spacing along an axis becomes old spacing * old length / new length.
    The area average with fractional voxels keeps the mean exactly and does not alias thin structures; growing
    equals torch.nn.functional.interpolate(align_corners=False).

    Args:
        voxels: (D, H, W), any numeric type; not changed.
        size: the new (D, H, W).

    Returns:
        float32 array of shape ``size``; shares memory with ``voxels`` when nothing changes.

    Raises:
        ValueError: ``voxels`` is not 3D or ``size`` is not three whole numbers >= 1.
    """
    if voxels.ndim != 3:
        raise ValueError(f"voxels must be (D, H, W), got shape {voxels.shape}; use resize_image for pictures")
    return _resize(voxels, (0, 1, 2), size)


def resize_image(pixels: np.ndarray, size: tuple[int, int], extent: tuple[float, float] | None = None) -> np.ndarray:
    """Resample (C, H, W) to (C, *size), by the rule of :func:`resize_volume` along H and W.

    A stack of frames (T, C, H, W) is resized alike.

    Args:
        extent: rows and columns that the picture fills, from the first, when the last is a part of one.

    Raises:
        ValueError: ``pixels`` has fewer than 3 or more than 4 axes, or ``size`` is not two whole numbers.
    """
    if pixels.ndim not in (3, 4):
        raise ValueError(f"pixels must be (C, H, W) or (T, C, H, W), got shape {pixels.shape}")
    return _resize(pixels, (pixels.ndim - 2, pixels.ndim - 1), size, extent)
