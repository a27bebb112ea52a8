"""NumPy .npy files: numbers without geometry; the manifest tells the rest."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers.refusals import decoding, require_finite, spacing_option, unit_option
from medvlm.model.geometry import axis_permutation_and_flips, reorient
from medvlm.model.visual import CANONICAL_ORIENTATION, Image, Kind, Volume

_ROUNDING = 1e-6


def kind_of_file(path: Path) -> Kind | None:
    """From the header alone: 2 axes, or 8-bit (H, W, 3), are an image; 3 axes a volume; None otherwise."""
    array = _open(path)
    if array.dtype.kind not in "biuf":
        return None
    if array.ndim == 2 or is_colour(array.shape, array.dtype):
        return "image"
    return "volume" if array.ndim == 3 else None


def _open(path: Path) -> np.ndarray:
    # A damaged header may claim any size; a memory map fails then instead of filling memory.
    mend = "save it again with numpy.save(path, array)"
    with decoding(path, "a whole .npy file of numbers", mend, also=(TokenError,)):
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    # One channel before the axes of a volume, as MONAI and M3D save it, says nothing more than the volume itself.
    return stored[0] if stored.ndim == 4 and stored.shape[0] == 1 and stored.shape[-1] != 3 else stored


def read(
    path: Path,
    *,
    spacing_mm: Any = None,
    unit: Any = None,
    modality: str = "unknown",
    orientation: Any = None,
) -> Image | Volume:
    """Read (H, W) as a grey Image, 8-bit (H, W, 3) as a colour Image in [0, 1], (D, H, W) or (1, D, H, W) as a Volume.

    Args:
        path: the .npy file; pickled objects are never loaded.
        spacing_mm: millimetres in axis order; None when unknown.
        unit: of medvlm.model.visual.Unit; "arbitrary" when not told.
        modality: what the manifest knows.
        orientation: of a volume's axes as stored, for example "SPL"; it is then reoriented to CANONICAL_ORIENTATION.

    Raises:
        BadSample: not a .npy of numbers with 2 or 3 axes, empty, NaN, or a malformed option.
    """
    return visual_of(_open(path), path, spacing_mm=spacing_mm, unit=unit, modality=modality, orientation=orientation)


def visual_of(
    stored: np.ndarray,
    path: Path,
    *,
    spacing_mm: Any = None,
    unit: Any = None,
    modality: str = "unknown",
    orientation: Any = None,
) -> Image | Volume:
    """The Image or Volume of an array, as ``read`` says; ``path`` is named in refusals.

    8-bit numbers that the manifest calls "display" are divided by 255; other numbers so called must lie in [0, 1],
    up to the rounding of float32 that interpolation leaves.
    """
    require_numbers(stored.shape, stored.dtype, path)
    colour = is_colour(stored.shape, stored.dtype)
    values = np.array(stored, dtype=np.float32)
    require_finite(values, path, "values")
    chosen = unit_option("arbitrary" if unit is None else unit, path)
    if colour or chosen == "display":
        values, chosen = _shown(values, stored.dtype, path), "display"
    if values.ndim == 2 or colour:
        spacing = spacing_option(spacing_mm, 2, path)
        pixels = np.ascontiguousarray(values.transpose(2, 0, 1)) if colour else values[None]
        return Image(pixels=pixels, modality=modality, unit=chosen, spacing_mm=spacing)  # type: ignore[arg-type]
    spacing = spacing_option(spacing_mm, 3, path)
    if orientation is not None:
        _require_orientation(orientation, path)
    volume = Volume(
        voxels=values,
        modality=modality,
        unit=chosen,
        spacing_mm=spacing,  # type: ignore[arg-type]
        orientation=orientation,
    )
    return volume if orientation is None else reorient(volume)


def _shown(values: np.ndarray, stored: np.dtype, path: Path) -> np.ndarray:
    if stored == np.uint8:
        return values / np.float32(255)
    if values.min() < -_ROUNDING or values.max() > 1 + _ROUNDING:
        raise BadSample(
            f"options.unit is 'display', but values run from {values.min():g} to {values.max():g}",
            where=str(path),
            mend="save 8-bit numbers or numbers from 0 to 1, or leave the unit out",
        )
    return np.clip(values, 0, 1)


def header_size(path: Path, *, orientation: Any = None, **_: Any) -> tuple[int, int, int]:
    """(D, H, W) of what ``read`` would return, from the header alone; an image has D 1.

    Raises:
        BadSample: as ``read``, where the header already shows it.
    """
    stored = _open(path)
    return size_of(stored.shape, stored.dtype, path, orientation)


def size_of(shape: tuple[int, ...], kind: np.dtype, path: Path, orientation: Any = None) -> tuple[int, int, int]:
    """(D, H, W) of what ``visual_of`` makes of an array of this shape and type."""
    require_numbers(shape, kind, path)
    if len(shape) == 2 or is_colour(shape, kind):
        return 1, shape[0], shape[1]
    order = (0, 1, 2) if orientation is None else _require_orientation(orientation, path)
    return shape[order[0]], shape[order[1]], shape[order[2]]


def is_colour(shape: tuple[int, ...], kind: np.dtype) -> bool:
    """8-bit (H, W, 3)."""
    return len(shape) == 3 and shape[-1] == 3 and kind == np.uint8


def require_numbers(shape: tuple[int, ...], kind: np.dtype, path: Path) -> None:
    """Refuse an array that is not one image or volume.

    Raises:
        BadSample: complex numbers or objects, another number of axes, or no values.
    """
    if kind.kind not in "biuf" or len(shape) not in (2, 3) or 0 in shape:
        raise BadSample(
            f"an array of shape {shape} and type {kind}; real numbers (H, W) or (D, H, W) are expected",
            where=str(path),
            mend="save one image or volume per .npy file, or name the item of an archive",
        )


def _require_orientation(orientation: Any, path: Path) -> tuple[int, ...]:
    """The axes in the order in which CANONICAL_ORIENTATION names them."""
    with decoding(path, "options.orientation of three letters", f"write it as {CANONICAL_ORIENTATION!r} is written"):
        return axis_permutation_and_flips(orientation)[0]
