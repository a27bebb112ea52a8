"""Black out rectangles in the pixels of a DICOM data set, given ones and those where OCR reads words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from medvlm.data_recipes.deidentification.options import Box
from medvlm.data_recipes.deidentification.pixels import MOST_FRAMES, TextBox, words_in
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers.dicom_header import frame_count, quiet
from medvlm.data_recipes.readers.dicom_pixels import decode_frame
from medvlm.model.visual import Image

Rectangle = tuple[int, int, int, int]
"""First row, first column, one past the last row, one past the last column."""

_RIM = 2
"""Pixels added around a word: OCR cuts letters closely."""


def has_pixels(dataset: Dataset) -> bool:
    """Whether the object is an image with pixels of its own."""
    return bool(dataset.get("Rows")) and bool(dataset.get("Columns")) and "PixelData" in dataset


def words_of(dataset: Dataset, where: Path) -> Iterator[tuple[TextBox, str]]:
    """Words that OCR reads in at most MOST_FRAMES frames; the boxes are (row, column) of stored pixels.

    Raises:
        BadSample: pixels that cannot be decoded.
        RuntimeError: there is no OCR.
    """
    count = frame_count(dataset)
    for frame in np.unique(np.linspace(0, count - 1, min(MOST_FRAMES, count)).round().astype(int)):
        yield from words_in(_as_image(dataset, decode_frame(dataset, int(frame), where)))


def _as_image(dataset: Dataset, stored: np.ndarray) -> Image:
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        with quiet():
            stored = apply_color_lut(stored, dataset)
    pixels = stored.astype(np.float32)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        pixels = pixels.max() - pixels
    pixels = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    return Image(pixels=np.ascontiguousarray(pixels), modality="unknown", unit="arbitrary")


def rectangles_for(dataset: Dataset, boxes: tuple[Box, ...]) -> list[Rectangle]:
    """The given boxes that are meant for pictures of this size and modality."""
    size = (int(dataset.Rows), int(dataset.Columns))
    modality = str(dataset.get("Modality", ""))
    return [
        (*box.low, *box.high) for box in boxes if (box.rows, box.columns) == size and box.modality in (None, modality)
    ]


def rectangle_of(box: TextBox, dataset: Dataset) -> Rectangle:
    """The rectangle of a word, a little larger."""
    (top, left), (bottom, right) = box.low[-2:], box.high[-2:]
    return (
        max(0, top - _RIM), max(0, left - _RIM),
        min(int(dataset.Rows), bottom + _RIM), min(int(dataset.Columns), right + _RIM),
    )  # fmt: skip


def black_out(dataset: Dataset, rectangles: list[Rectangle], where: Path) -> None:
    """Blacken the rectangles in every frame, in place. All other stored values stay as they decode.

    Pixels become uncompressed (Explicit VR Little Endian), colour becomes RGB. Nothing is done without rectangles.

    Raises:
        BadSample: pixels that cannot be decoded, of one bit, or big endian.
    """
    if not rectangles:
        return
    if int(dataset.BitsAllocated) not in (8, 16, 32) or dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian:
        raise BadSample(
            f"{dataset.BitsAllocated}-bit pixels in {dataset.file_meta.TransferSyntaxUID.name} cannot be blacked out",
            where=str(where),
            mend="convert the file to Explicit VR Little Endian first, or leave it out",
        )
    frames = [decode_frame(dataset, frame, where).copy() for frame in range(frame_count(dataset))]
    for frame in frames:
        black = _black(dataset, frame)
        for top, left, bottom, right in rectangles:
            frame[top:bottom, left:right] = black
    pixels = np.stack(frames)
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    dataset["PixelData"].is_undefined_length = False
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if pixels.ndim == 4:
        dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.BurnedInAnnotation = "NO"


def _black(dataset: Dataset, frame: np.ndarray) -> int:
    """The stored value that is shown as black and occurs already, so that ranges and rescaled values stay."""
    interpretation = dataset.get("PhotometricInterpretation")
    if interpretation == "MONOCHROME1":
        return int(frame.max())
    if interpretation == "PALETTE COLOR":
        present = np.unique(frame)
        with quiet():
            shown = apply_color_lut(present[None], dataset)[0].astype(np.int64).sum(axis=-1)
        return int(present[shown.argmin()])
    return 0 if frame.ndim == 3 else int(frame.min())
