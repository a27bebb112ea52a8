"""A visual as one plain array and the reader options that give the same visual back."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np

from medvlm.model.visual import Image, Kind, Video, Visual, Volume

Precision = Literal["exact", "rounded"]
"""exact: every value comes back as it was. rounded: display values to 1/255 (error at most 1/510), HU to whole HU
(error at most 0.5), other units to 65536 levels between the visual's least and greatest value (error at most half a
level, and float32's own rounding)."""

_RANGES = {np.uint8: (0, 255), np.int16: (-32768, 32767), np.uint16: (0, 65535)}


def to_array(visual: Visual, precision: Precision) -> tuple[np.ndarray, dict[str, Any]]:
    """The numbers in the axis order of ``visual``, and the options of :func:`from_array`.

    uint8 means levels of 1/255; "scale": [low, step] means low + step * level; else the numbers themselves.
    """
    options: dict[str, Any] = {"modality": visual.modality}
    match visual:
        case Image():
            values, unit = visual.pixels, visual.unit
        case Volume():
            values, unit = visual.voxels, visual.unit
        case Video():
            values, unit = visual.frames, "display"
    if isinstance(visual, Video):
        options["times_s"] = visual.times_s.tolist()
    else:
        options["unit"] = unit
        if visual.orientation is not None:
            options["orientation"] = visual.orientation
        if visual.window is not None:
            options["window"] = [float(edge) for edge in visual.window]
    if visual.spacing_mm is not None:
        options["spacing_mm"] = [float(s) for s in visual.spacing_mm]
    array = _exact(values, unit)
    if array is None and precision == "rounded":
        array, scale = _rounded(values, unit)
        if scale is not None:
            options["scale"] = scale
    return (values if array is None else array), options


def _exact(values: np.ndarray, unit: str) -> np.ndarray | None:
    """A small type that holds ``values`` without loss, or None."""
    low, high = float(values.min()), float(values.max())
    if unit == "display":
        if low < 0 or high > 1:
            return None
        levels = np.rint(values * np.float32(255)).astype(np.uint8)
        return levels if np.array_equal(levels / np.float32(255), values) else None
    for kind in (np.int16, np.uint16):
        least, most = _RANGES[kind]
        if least <= low and high <= most:
            whole = values.astype(kind)
            return whole if np.array_equal(whole, values) else None
    return None


def _rounded(values: np.ndarray, unit: str) -> tuple[np.ndarray | None, list[float] | None]:
    low, high = float(values.min()), float(values.max())
    if unit == "display" and low >= -1e-6 and high <= 1 + 1e-6:
        return np.rint(values.clip(0, 1) * np.float32(255)).astype(np.uint8), None
    if unit == "HU" and low >= -32768 and high <= 32767:
        return np.rint(values).astype(np.int16), None
    step = (high - low) / 65535
    if step <= 0:
        return None, None
    levels = np.rint((values.astype(np.float64) - low) / step).clip(0, 65535).astype(np.uint16)
    return levels, [low, step]


def from_array(array: np.ndarray, kind: Kind, options: dict[str, Any]) -> Visual:
    """The visual that :func:`to_array` took apart.

    Raises:
        ValueError, TypeError: options that are not those of ``kind``.
    """
    values = array.astype(np.float32, copy=False)
    rest = dict(options)
    scale = rest.pop("scale", None)
    if array.dtype == np.uint8:
        values /= np.float32(255)
    elif scale is not None:
        low, step = scale
        values = (array * np.float64(step) + np.float64(low)).astype(np.float32)
    for name in ("spacing_mm", "window"):
        if name in rest:
            rest[name] = tuple(rest[name])
    if kind == "image":
        return Image(pixels=values, **rest)
    if kind == "volume":
        return Volume(voxels=values, **rest)
    times = np.asarray(rest.pop("times_s"), dtype=np.float64)
    return Video(frames=values, times_s=times, **rest)


def npy_bytes(array: np.ndarray) -> bytes:
    """The .npy file of ``array``, C order."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return file.getvalue()


def array_in(data: bytes | bytearray) -> np.ndarray:
    """The array of a .npy file in memory, without a copy.

    Raises:
        ValueError: not a whole .npy file of numbers.
    """
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f".npy version {version}; (1, 0) is what shards hold")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran or dtype.kind not in "iuf":
        raise ValueError(f"an array of type {dtype}, Fortran order {fortran}; numbers in C order are expected")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape)
