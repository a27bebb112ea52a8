"""Pictures of everyday formats, through Pillow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from PIL import ExifTags, ImageOps, UnidentifiedImageError

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers.refusals import decoding, index_option, require_finite, spacing_option
from medvlm.model.visual import Image, Unit

try:
    import simplejpeg
except ModuleNotFoundError:
    simplejpeg = None

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000")
"""Pillow plugins that may run: none that starts another program (EPS) or fetches anything."""

PIL.Image.init()  # registers every plugin; without it those that are not preloaded are unknown names

AtLeast = Callable[[tuple[int, int]], tuple[int, int]]

_TURNED = (5, 6, 7, 8)
"""EXIF orientations that exchange rows and columns."""

CLEARLY_LARGER = 1.4
"""A picture that was decoded smaller is resampled once more, which blurs where it is only little larger than what is
shown: burned-in letters lose half their contrast at 1.05 (docs/benchmarks.md)."""

_MEND = "copy the file again from its source, or leave it out"


def read(
    path: Path,
    *,
    frame: Any = None,
    modality: str = "unknown",
    spacing_mm: Any = None,
    at_least: AtLeast | None = None,
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
        at_least: from the (H, W) of the whole picture to the (H, W) that the caller will resample it to. A JPEG is then
            decoded at the smallest of 1/2, 1/4 and 1/8 that is exactly that, or clearly larger (``serves``), along both
            axes, or whole where there is none; by libjpeg's reduced inverse transforms, which leave out the frequencies
            that the smaller picture cannot show. Spacing is that of the decoded pixels, and ``full_size`` tells the
            whole. Pictures of other formats are decoded whole.

    Raises:
        BadSample: damaged or truncated file, several pages without a choice, NaN, malformed option.
    """
    spacing = spacing_option(spacing_mm, 2, path)
    picture = _open(path)
    if picture.format == "PNG":
        # Decoding passes over checksums of the picture data; verify() reads them all, but uses the object up.
        with decoding(path, "a whole picture", _MEND), picture:
            picture.verify()
        picture = _open(path)
    with picture:
        _choose_frame(picture, frame, path)
        full_size, scale = (None, 1) if at_least is None else _draft(picture, at_least, path)
        with decoding(path, f"a whole {picture.format} picture", _MEND):
            fast = None if at_least is None else turbojpeg(picture, path)
            unit: Unit
            if fast is not None:
                array, unit = fast, "display"
            else:
                # Pillow would paint the missing part grey if another library had set LOAD_TRUNCATED_IMAGES.
                picture.load()
                if picture.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                    picture = ImageOps.exif_transpose(picture)
                array, unit = _array_of(picture)
    if array.dtype.kind == "f":
        require_finite(array, path, "pixels")
    pixels = np.ascontiguousarray(array if array.ndim == 3 else array[None], dtype=np.float32)
    window = None
    if unit == "display":
        pixels /= np.float32(255)
    else:
        low, high = float(pixels.min()), float(pixels.max())
        window = (low, high) if high > low else None
    return Image(
        pixels=pixels,
        modality=modality,
        unit=unit,
        spacing_mm=None if spacing is None else (spacing[0] * scale, spacing[1] * scale),
        window=window,
        full_size=full_size,
        scale=scale,
    )


def _draft(picture: PIL.Image.Image, at_least: AtLeast, path: Path) -> tuple[tuple[int, int] | None, int]:
    """Ask libjpeg for the smallest scale that serves: (H, W) of the whole picture, upright, and how many
    of its rows become one; (None, 1) when it will be decoded whole."""
    if picture.format != "JPEG":
        return None, 1
    with decoding(path, "a whole JPEG picture", _MEND):
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        width, height = picture.size
        whole = (width, height) if orientation in _TURNED else (height, width)
        rows, columns = at_least(whole)
        scale = next((s for s in (8, 4, 2) if serves(whole[0] / s, rows) and serves(whole[1] / s, columns)), 1)
        # The last row and column stand for what is left; turned over, they would come first.
        if orientation != 1 and (height % scale or width % scale):
            scale = 1
        if scale == 1:
            return None, 1
        picture.draft(None, (width // scale, height // scale))
    return whole, scale


def serves(decoded: float, wanted: int) -> bool:
    """Whether ``decoded`` rows or columns can stand for all of them where ``wanted`` will be shown."""
    return decoded == wanted or decoded >= CLEARLY_LARGER * wanted


def header_size(path: Path, *, frame: Any = None, **_: Any) -> tuple[int, int, int] | None:
    """(1, H, W) of what ``read`` would return, from the header alone; None when the header does not tell: a PNG that
    writes text or EXIF, which may turn the picture, behind its pixels.

    Raises:
        BadSample: as ``read``, where the header already shows it.
    """
    with _open(path) as picture:
        # Pages of a TIFF differ in size; frames of an animation share one canvas, and turning to one decodes others.
        _choose_frame(picture, frame, path, seek=picture.format == "TIFF")
        if picture.format == "PNG" and _png_says_more_after_pixels(path):
            return None
        with decoding(path, f"a whole {picture.format} picture", _MEND):
            width, height = picture.size
            # The getexif of PNG files decodes the pixels first; the one that it inherits does not.
            turned = PIL.Image.Image.getexif(picture).get(ExifTags.Base.Orientation) in _TURNED
            # Pillow turns the size of a TIFF by its own tag when it opens the file.
            tags = getattr(picture, "tag_v2", {})
            turned &= tags.get(ExifTags.Base.Orientation) not in _TURNED
    return (1, width, height) if turned else (1, height, width)


def _png_says_more_after_pixels(path: Path) -> bool:
    """Whether a chunk that can hold an orientation stands behind the first IDAT (PNG, third edition, 5.6)."""
    with path.open("rb") as file:
        file.seek(8)
        pixels = False
        while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
            pixels |= head[4:] == b"IDAT"
            if pixels and head[4:] in (b"eXIf", b"iTXt", b"zTXt", b"tEXt"):
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False


def _open(path: Path) -> PIL.Image.Image:
    """The picture, its header read and its pixels not."""
    with decoding(path, "a whole picture", _MEND, also=(UnidentifiedImageError, PIL.Image.DecompressionBombError)):
        return PIL.Image.open(path, formats=FORMATS)


def _choose_frame(picture: PIL.Image.Image, frame: Any, path: Path, *, seek: bool = True) -> None:
    """Turn to the frame that ``options.frame`` names; several pages of a TIFF need one."""
    with decoding(path, f"a whole {picture.format} picture", _MEND):
        count = getattr(picture, "n_frames", 1)
    if frame is not None:
        with decoding(path, f"a {picture.format} picture of {count} frames", _MEND):
            chosen = index_option("frame", frame, count, path)
            if seek:
                picture.seek(chosen)
    elif count > 1 and picture.format == "TIFF":
        raise BadSample(
            f"a TIFF of {count} pages; one picture is expected",
            where=str(path),
            mend=f"choose a page with options.frame, 0 to {count - 1}",
        )


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
    few = colour[::16, ::16]  # enough to tell most colour pictures
    for pixels in (few, colour):
        if (pixels[..., 0] != pixels[..., 1]).any() or (pixels[..., 0] != pixels[..., 2]).any():
            return colour.transpose(2, 0, 1)
    return colour[..., 0]


def turbojpeg(picture: PIL.Image.Image, path: Path) -> np.ndarray | None:
    """The pixels of a JPEG that is open in Pillow, at the size that it was drafted to, decoded by simplejpeg.

    It is the decoder of Pillow (libjpeg-turbo) and gives the same numbers, with less around it.

    Returns:
        (H, W) or (3, H, W) uint8; None when simplejpeg is not installed, or leaves the picture to Pillow: neither grey
        nor RGB, turned by its EXIF, or with a warning, of which Pillow decides whether it is damage.
    """
    if simplejpeg is None or picture.format != "JPEG" or picture.mode not in ("L", "RGB"):
        return None
    if picture.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        return None
    width, height = picture.size
    try:
        array = simplejpeg.decode_jpeg(
            path.read_bytes(), "GRAY" if picture.mode == "L" else "RGB", min_height=height, min_width=width
        )
    except ValueError:
        return None
    if array.shape[:2] != (height, width):
        return None
    return array[..., 0] if picture.mode == "L" else as_channels(array)
