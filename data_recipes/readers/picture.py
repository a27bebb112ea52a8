"""Pictures of everyday formats, through Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from PIL import ImageOps, UnidentifiedImageError

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers.refusals import decoding, index_option, require_finite, spacing_option
from medvlm.model.visual import Image, Unit

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000")
"""Pillow plugins that may run: none that starts another program (EPS) or fetches anything."""

PIL.Image.init()  # registers every plugin; without it those that are not preloaded are unknown names

_MEND = "copy the file again from its source, or leave it out"


def read(
    path: Path,
    *,
    frame: Any = None,
    modality: str = "unknown",
    spacing_mm: Any = None,
) -> Image:
    """Read PNG, JPEG, TIFF, BMP, GIF, WebP or JPEG 2000.

    - EXIF rotation is applied. ICC profiles are not.
    - 8-bit pictures become unit "display", [0, 1]. Grey ones, also when stored as RGB with equal channels, have
      one channel. Transparent pixels are laid over black, the background of radiographs. CMYK and palettes
      become RGB. 16-bit RGB loses its low byte in Pillow.
    - Grey of more than 8 bits, and float, keeps its raw values with unit "arbitrary" and ``window`` (min, max) of
      the picture: such files often use 12 of 16 bits, so a division by 65535 would leave them nearly black.
    - The dots per inch that pictures carry are of paper, not of the patient: they are no spacing.

    Args:
        path: the file; its extension is not looked at.
        frame: page of a TIFF, or frame of an animation, from 0. An animation shows its first frame when none is
            chosen; a TIFF of several pages must be told which.
        modality: what the manifest knows.
        spacing_mm: (row, column) millimetres, when the manifest knows.

    Raises:
        BadSample: damaged or truncated file, several pages without a choice, NaN, malformed option.
    """
    spacing = spacing_option(spacing_mm, 2, path)
    with decoding(path, "a whole picture", _MEND, also=(UnidentifiedImageError, PIL.Image.DecompressionBombError)):
        picture = PIL.Image.open(path, formats=FORMATS)
        if picture.format == "PNG":
            # Decoding passes over checksums of the picture data; verify() reads them all, but uses the object up.
            with picture:
                picture.verify()
            picture = PIL.Image.open(path, formats=FORMATS)
    with picture:
        with decoding(path, f"a whole {picture.format} picture", _MEND):
            count = getattr(picture, "n_frames", 1)
        if frame is not None:
            with decoding(path, f"a {picture.format} picture of {count} frames", _MEND):
                picture.seek(index_option("frame", frame, count, path))
        elif count > 1 and picture.format == "TIFF":
            raise BadSample(
                f"a TIFF of {count} pages; one picture is expected",
                where=str(path),
                mend=f"choose a page with options.frame, 0 to {count - 1}",
            )
        with decoding(path, f"a whole {picture.format} picture", _MEND):
            # Pillow would paint the missing part grey if another library had set LOAD_TRUNCATED_IMAGES.
            picture.load()
            array, unit = _array_of(ImageOps.exif_transpose(picture))
    if array.dtype.kind == "f":
        require_finite(array, path, "pixels")
    pixels = np.ascontiguousarray(array if array.ndim == 3 else array[None], dtype=np.float32)
    window = None
    if unit == "display":
        pixels /= np.float32(255)
    else:
        low, high = float(pixels.min()), float(pixels.max())
        window = (low, high) if high > low else None
    return Image(pixels=pixels, modality=modality, unit=unit, spacing_mm=spacing, window=window)  # type: ignore[arg-type]


def _array_of(picture: PIL.Image.Image) -> tuple[np.ndarray, Unit]:
    """(H, W) grey or (3, H, W) colour, and its unit; display is still 0..255."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return np.asarray(picture), "arbitrary"
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L")), "display"
    if picture.has_transparency_data:
        layered = picture.convert("RGBA")
        black = PIL.Image.new("RGBA", layered.size, (0, 0, 0, 255))
        picture = PIL.Image.alpha_composite(black, layered)
    colour = np.asarray(picture.convert("RGB"))
    return as_channels(colour), "display"


def as_channels(colour: np.ndarray) -> np.ndarray:
    """(H, W, 3) to (3, H, W), or to (H, W) when the three channels are equal."""
    if (colour[..., 0] == colour[..., 1]).all() and (colour[..., 0] == colour[..., 2]).all():
        return colour[..., 0]
    return colour.transpose(2, 0, 1)
