"""Whether DICOM pixels can have the size that the header claims: asked before any decoder reserves memory."""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.encaps import get_frame

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers.dicom_header import DICOM_ERRORS, frame_count
from medvlm.data_recipes.readers.refusals import decoding

MOST_PIXELS = 200_000_000
"""Of one frame, as Pillow's limit for pictures; the largest radiographs have a tenth of it."""

_START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}


def require_fitting_size(dataset: Dataset, frame: int, path: Path) -> None:
    """Refuse pixels that cannot be of the header's size.

    Uncompressed pixels that would fill at least one frame more than the header states are refused, because
    pydicom only warns and the frame cut out would be a wrong piece; less than a frame is padding. JPEG, JPEG-LS
    and JPEG 2000 frames state a size of their own, for which decoders reserve memory: it must be the header's.

    Raises:
        BadSample: names both sizes.
    """
    rows, columns, count = int(dataset.Rows), int(dataset.Columns), frame_count(dataset)
    if rows * columns > MOST_PIXELS:
        raise _refusal(f"{rows}x{columns} pixels; at most {MOST_PIXELS} are expected", path)
    pixels = dataset.get("PixelData") or b""
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_transfer_syntax:
        return
    if not syntax.is_compressed:
        samples, bits = int(dataset.get("SamplesPerPixel") or 1), int(dataset.get("BitsAllocated") or 0)
        frame_bytes = rows * columns * samples * bits // 8
        needed = frame_bytes * count
        if frame_bytes and len(pixels) >= needed + frame_bytes:
            raise _refusal(
                f"{len(pixels)} bytes of pixels, but the header's {count} frame(s) of {rows}x{columns} need {needed}",
                path,
            )
        return
    with decoding(path, f"{count} encapsulated frame(s)", "copy the file again from the archive", also=DICOM_ERRORS):
        encoded = get_frame(pixels, frame, number_of_frames=count)
    own = codestream_size(encoded)
    if own is not None and own != (rows, columns):
        raise _refusal(f"the compressed frame is of {own[0]}x{own[1]}, but the header says {rows}x{columns}", path)


def _refusal(reason: str, path: Path) -> BadSample:
    return BadSample(reason, where=str(path), mend="correct NumberOfFrames, Rows and Columns, or leave the file out")


def codestream_size(encoded: bytes) -> tuple[int, int] | None:
    """(rows, columns) that a JPEG, JPEG-LS (ISO 10918-1 and 14495-1: SOF marker) or JPEG 2000 (ISO 15444-1: SIZ
    marker) frame states; None for other codes, and when the marker is not found.
    """
    at = encoded.find(b"\xff\x4f\xff\x51", 0, 4096)
    if at >= 0 and len(encoded) >= at + 24:
        width, height, left, top = (int.from_bytes(encoded[at + k : at + k + 4], "big") for k in (8, 12, 16, 20))
        return height - top, width - left
    if not encoded.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 9 <= len(encoded) and encoded[at] == 0xFF:
        marker = encoded[at + 1]
        if marker in _START_OF_FRAME:
            height, width = (int.from_bytes(encoded[at + k : at + k + 2], "big") for k in (5, 7))
            return height, width
        if marker == 0xFF:  # a fill byte
            at += 1
        else:
            at += 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")
    return None
