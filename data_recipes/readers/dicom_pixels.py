"""DICOM pixels: decoded, rescaled, windowed and coloured as the header says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, pixel_array

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers.dicom_header import (
    DICOM_ERRORS,
    PIXEL_KEYWORDS,
    frame_count,
    numbers,
    quiet,
    require_pixels,
    unit_of,
    voi_window,
)
from medvlm.data_recipes.readers.dicom_size import require_fitting_size
from medvlm.data_recipes.readers.picture import as_channels
from medvlm.data_recipes.readers.refusals import decoding, require_finite
from medvlm.model.visual import Unit

MEASURING = ("CT", "MR", "PT", "NM")
"""Modalities whose numbers are kept, with the window that the file asks for. The others (CR, DX, MG, XA, US,
endoscopy, photographs, ...) are pictures: their window is applied."""


def decode_frame(dataset: Dataset, frame: int, path: Path) -> np.ndarray:
    """Stored values of one frame: (H, W), or (H, W, 3) as RGB; YBR is converted.

    Raises:
        BadSample: no pixels, truncated, or a transfer syntax that cannot be decoded.
    """
    require_pixels(dataset, path)
    if not any(keyword in dataset for keyword in PIXEL_KEYWORDS):
        raise BadSample(
            "this DICOM file holds no pixels: it has an image header without PixelData",
            where=str(path),
            mend="copy the file again from the archive, or leave it out",
        )
    require_fitting_size(dataset, frame, path)
    syntax = getattr(dataset.file_meta.TransferSyntaxUID, "name", "an unknown transfer syntax")
    with (
        decoding(
            path,
            f"{frame_count(dataset)} whole frame(s) of {dataset.Rows}x{dataset.Columns} in {syntax}",
            "copy the file again from the archive, or convert it to an uncompressed transfer syntax",
            also=DICOM_ERRORS,
        ),
        quiet(),
    ):
        array = pixel_array(dataset, index=frame)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] != 3):
        raise BadSample(
            f"one frame decodes to shape {array.shape}; (H, W) or (H, W, 3) is expected",
            where=str(path),
            mend="convert the file to grey or RGB",
        )
    return array


def rescale(dataset: Dataset, groups: Dataset, stored: np.ndarray, path: Path) -> np.ndarray:
    """Stored values to the modality's values, float32: Modality LUT Sequence, else slope and intercept.

    Raises:
        BadSample: slope 0, one of slope and intercept without the other, NaN.
    """
    if "ModalityLUTSequence" in dataset:
        with decoding(path, "a Modality LUT", "repair ModalityLUTSequence", also=DICOM_ERRORS):
            return np.asarray(apply_modality_lut(stored, dataset), dtype=np.float32)
    slope = numbers(groups, "RescaleSlope", 1, path)
    intercept = numbers(groups, "RescaleIntercept", 1, path)
    if (slope is None) != (intercept is None):
        absent = "RescaleSlope" if slope is None else "RescaleIntercept"
        raise BadSample(
            f"{absent} is absent although its partner is there, so the values have no unit",
            where=str(path),
            mend=f"write {absent} (slope 1, intercept 0 when the scanner means none)",
        )
    values = stored.astype(np.float32)
    if slope is not None and intercept is not None:
        if slope[0] == 0:
            raise BadSample(
                "RescaleSlope is 0, which makes all values equal; a slope other than 0 is expected",
                where=str(path),
                mend="write the true RescaleSlope, or leave the file out",
            )
        # In double precision: 32-bit stored values times a small slope lose digits in float32.
        values = (stored * np.float64(slope[0]) + intercept[0]).astype(np.float32)
    require_finite(values, path, "pixels")
    return values


def picture_of(
    dataset: Dataset, groups: Dataset, frame: int, path: Path
) -> tuple[np.ndarray, Unit, tuple[float, float] | None]:
    """One frame as a picture: pixels (C, H, W) float32, their unit, and the window asked for.

    - Colour and palettes: unit "display", [0, 1].
    - MEASURING modalities: HU, SUV or arbitrary numbers and the first window of the file.
    - Other grey pictures: unit "display" by the VOI LUT, else by the first window with its VOILUTFunction (PS3.3
      C.11.2), else by the stored range when it has at most 8 bits; without any of these raw values, unit
      "arbitrary", window (min, max), because 12-bit values in 16-bit files would be nearly black.
    - MONOCHROME1 is inverted, so that bright means much signal, and its numbers are then arbitrary.
    """
    stored = decode_frame(dataset, frame, path)
    if stored.ndim == 3 or dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        return _colour(dataset, stored, path), "display", None
    values = rescale(dataset, groups, stored, path)
    unit = unit_of(dataset, groups)
    window = voi_window(groups, path)
    inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    if dataset.get("Modality") not in MEASURING:
        shown = _shown(dataset, groups, values, window, path)
        if shown is not None:
            return (1 - shown if inverted else shown)[None], "display", None
        low, high = float(values.min()), float(values.max())
        window = (low, high) if high > low else None
    if inverted:
        values, window = turned_over(values, window)
    return values[None], unit, window


def turned_over(
    values: np.ndarray, window: tuple[float, float] | None
) -> tuple[np.ndarray, tuple[float, float] | None]:
    """MONOCHROME1 values of a picture or a whole volume as MONOCHROME2, in the same range; window alike."""
    total = values.min() + values.max()
    return total - values, window and (float(total) - window[1], float(total) - window[0])


def _colour(dataset: Dataset, stored: np.ndarray, path: Path) -> np.ndarray:
    """(C, H, W) in [0, 1] of RGB or palette indices."""
    white = float(2 ** int(dataset.BitsStored) - 1)
    if stored.ndim == 2:
        with decoding(path, "a colour palette", "repair the PaletteColorLookupTable elements", also=DICOM_ERRORS):
            stored = apply_color_lut(stored, dataset)[..., :3]
        white = float(np.iinfo(stored.dtype).max)
    channels = as_channels(stored)
    channels = channels if channels.ndim == 3 else channels[None]
    return np.clip(channels / white, 0, 1).astype(np.float32)


def _shown(dataset: Dataset, groups: Dataset, values: np.ndarray, window: Any, path: Path) -> np.ndarray | None:
    """Grey values as the file asks to show them, in [0, 1]; None when it asks nothing and has over 8 bits."""
    if "VOILUTSequence" in groups:
        with decoding(path, "a VOI LUT", "repair VOILUTSequence", also=DICOM_ERRORS):
            item = groups.VOILUTSequence[0]
            signed = int(dataset.get("PixelRepresentation") or 0)
            item.LUTDescriptor  # noqa: B018 (absent: the decoder's complaint, not ours)
            holder = Dataset()
            holder.VOILUTSequence = groups.VOILUTSequence
            holder.PixelRepresentation = signed
            mapped = apply_voi(np.rint(values).astype(np.int64), holder)
            # The descriptor often claims 16 bits for a table of 12: white is the table's own maximum.
            data = item.LUTData
            table = np.frombuffer(data, dtype=np.uint16) if isinstance(data, bytes) else np.asarray(data)
            return np.clip(mapped / float(table.max()), 0, 1).astype(np.float32)
    if window is not None:
        return window_values(values, window, str(groups.get("VOILUTFunction") or "LINEAR"))
    bits = int(dataset.get("BitsStored") or 32)
    if bits <= 8 and values.min() >= 0 and values.max() <= 2**bits - 1:
        return values / np.float32(2**bits - 1)
    return None


def window_values(values: np.ndarray, window: tuple[float, float], function: str) -> np.ndarray:
    """Map values to [0, 1] by DICOM's VOI LUT function (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Args:
        values: any shape, in rescaled units.
        window: (low, high) = centre -+ width / 2.
        function: LINEAR, LINEAR_EXACT or SIGMOID.
    """
    centre, width = (window[0] + window[1]) / 2, window[1] - window[0]
    if function == "SIGMOID":
        exponent = np.clip(-4 * (values.astype(np.float64) - centre) / width, -700, 700)
        return (1 / (1 + np.exp(exponent))).astype(np.float32)
    if function != "LINEAR_EXACT":
        centre, width = centre - 0.5, width - 1
    if width <= 0:
        return (values > centre).astype(np.float32)
    return np.clip((values - np.float32(centre)) / np.float32(width) + np.float32(0.5), 0, 1).astype(np.float32)
