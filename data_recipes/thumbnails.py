"""A visual as a small upright PNG for people: one picture, six slices, or six frames."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw, ImageFont

from medvlm.data_recipes.upright import upright
from medvlm.model.geometry import reorient
from medvlm.model.intensity import HU_WINDOWS, apply_window, percentile_window
from medvlm.model.visual import Image, Video, Visual, Volume

TILES = 6
IN_ROW = 3
TILE_WIDTH = 190
IMAGE_WIDTH = 320
_MARK = (255, 214, 10)


def thumbnail(visual: Visual) -> bytes:
    """``visual`` as PNG.

    A picture is turned upright with the patient's right on the viewer's left when its orientation is known; sides
    are marked then, and only then: a mark on a picture of unknown orientation would be a guess.
    """
    match visual:
        case Image():
            picture = _image(visual)
        case Volume():
            picture = _strip(_slices(visual))
        case Video():
            picture = _strip(_frames(visual))
    buffer = BytesIO()
    picture.save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def _image(image: Image) -> Pil.Image:
    if image.unit == "display":
        grey = image.pixels.clip(0, 1)
    else:
        grey = apply_window(image.pixels, image.window or percentile_window(image.pixels))
    spacing = image.spacing_mm or (1.0, 1.0)
    turning = upright(image.orientation)
    pixels = turning.pixels(grey.transpose(1, 2, 0))
    side = turning.orientation[1] if turning.orientation else None
    return _marked(_resized(pixels, turning.spacing(spacing), IMAGE_WIDTH), side)


def _slices(volume: Volume) -> list[Pil.Image]:
    """Six axial slices from the lowest to the highest, without the outer eighth at either end."""
    if volume.orientation is not None:
        volume = reorient(volume)
    window = volume.window or (HU_WINDOWS["lung"] if volume.unit == "HU" else percentile_window(volume.voxels))
    depth = len(volume.voxels)
    chosen = np.unique(np.linspace(depth / 8, depth - 1 - depth / 8, TILES).clip(0, depth - 1).round().astype(int))
    plane = volume.spacing_mm[1:] if volume.spacing_mm else (1.0, 1.0)
    side = "L" if volume.orientation is not None else None
    tiles = []
    for place in chosen:
        pixels = apply_window(volume.voxels[place], window)[:, :, None]
        tiles.append(_labelled(_marked(_resized(pixels, plane, TILE_WIDTH), side), f"{place + 1}/{depth}"))
    return tiles


def _frames(video: Video) -> list[Pil.Image]:
    """Six frames, first and last included."""
    chosen = np.unique(np.linspace(0, len(video.frames) - 1, TILES).round().astype(int))
    spacing = video.spacing_mm or (1.0, 1.0)
    return [
        _labelled(
            _resized(video.frames[place].transpose(1, 2, 0).clip(0, 1), spacing, TILE_WIDTH),
            f"{video.times_s[place]:.2f} s",
        )
        for place in chosen
    ]


def _resized(pixels: np.ndarray, spacing: tuple[float, ...], width: int) -> Pil.Image:
    """(H, W, C) in [0, 1] as an RGB picture ``width`` wide, with the proportions of the body."""
    array = np.ascontiguousarray((pixels * 255).round().astype(np.uint8))
    picture = Pil.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).convert("RGB")
    height = round(width * (pixels.shape[0] * spacing[0]) / (pixels.shape[1] * spacing[1]))
    return picture.resize((width, max(8, min(height, 2 * width))), Pil.Resampling.BICUBIC)


def _write(picture: Pil.Image, at: tuple[int, int], text: str, anchor: str) -> None:
    ImageDraw.Draw(picture).text(
        at, text, fill=_MARK, anchor=anchor, font=ImageFont.load_default(13), stroke_width=2, stroke_fill=(0, 0, 0)
    )


def _marked(picture: Pil.Image, columns_run_to: str | None) -> Pil.Image:
    """R and L at the edges where the patient's sides are known; nothing in a lateral view."""
    if columns_run_to in ("L", "R"):
        left, right = ("R", "L") if columns_run_to == "L" else ("L", "R")
        middle = picture.height // 2
        _write(picture, (5, middle), left, "lm")
        _write(picture, (picture.width - 5, middle), right, "rm")
    return picture


def _labelled(picture: Pil.Image, text: str) -> Pil.Image:
    _write(picture, (picture.width - 4, picture.height - 4), text, "rs")
    return picture


def _strip(tiles: list[Pil.Image]) -> Pil.Image:
    """Tiles in reading order, ``IN_ROW`` beside each other."""
    gap = 3
    rows = [tiles[first : first + IN_ROW] for first in range(0, len(tiles), IN_ROW)]
    width, height = tiles[0].size
    columns = max(map(len, rows))
    strip = Pil.new("RGB", (columns * (width + gap) - gap, len(rows) * (height + gap) - gap))
    for number, row in enumerate(rows):
        for place, tile in enumerate(row):
            strip.paste(tile, (place * (width + gap), number * (height + gap)))
    return strip
