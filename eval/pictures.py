"""Visuals inside of a page: pictures as JPEG, clips as frames, and scans as numbers that a browser can window.

A scan is made smaller by area average, never by leaving slices out, and keeps its unit: 12 bits a voxel, in HU from
-1024 to 3071 in steps of 1. What was made smaller is said beside it.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pil

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import VisualRef
from medvlm.data_recipes.upright import Turning, upright
from medvlm.eval.generate import Reader
from medvlm.model.geometry import resize_image, resize_volume
from medvlm.model.intensity import HU_WINDOWS, Window, apply_window, percentile_window
from medvlm.model.visual import Image, Video, Visual, Volume

PICTURE_SIZE, FRAME_SIZE, FRAMES = 640, 288, 32
"""Longest side of a picture and of a frame in pixels, and most frames of a clip."""

STACK_SIZES: tuple[tuple[int, int], ...] = ((256, 96), (192, 64), (160, 48), (128, 40))
"""(longest side of a slice, most slices): the first whose share of the budget suffices, else the last."""

BYTES_A_VOXEL = 1.2
"""Of a packed CT, base64 included: what a size is chosen by; the budget itself counts the bytes that were written."""

LEVELS = 4095
HU_RANGE: Window = (-1024.0, 3071.0)

PRESETS: Mapping[str, Window] = {
    "Lung": HU_WINDOWS["lung"],
    "Soft tissue": HU_WINDOWS["soft_tissue"],
    "Bone": HU_WINDOWS["bone"],
    "Brain": HU_WINDOWS["brain"],
}


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """One visual as the page holds it.

    Attributes:
        about: what the viewer needs, of plain JSON types; see report_viewer.js.
        text: its bytes as base64; of a clip one frame a word.
        turning: of a picture that was turned upright, for the boxes in it.
    """

    about: dict[str, Any]
    text: str
    turning: Turning = field(default_factory=Turning)


def embed(visual: Visual, *, share: float = float("inf")) -> Embedded:
    """``visual`` for a page.

    Args:
        share: bytes that a scan should stay below; the smallest of STACK_SIZES is used whatever it takes.
    """
    match visual:
        case Image():
            return _scan_of_image(visual) if _has_levels(visual) else _picture(visual)
        case Volume():
            return _scan(visual, share)
        case Video():
            return _clip(visual)


def _has_levels(image: Image) -> bool:
    """Whether a window can show more of ``image`` than a picture of 256 greys holds."""
    return image.unit != "display" and image.pixels.shape[0] == 1


def _within(height: int, width: int, longest: int) -> tuple[int, int]:
    scale = min(1.0, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _said_smaller(before: Sequence[int], after: Sequence[int], what: str) -> str:
    if tuple(before) == tuple(after):
        return f"as stored: {' × '.join(map(str, after))} {what}"
    return f"{' × '.join(map(str, before))} {what}, made smaller to {' × '.join(map(str, after))} by area average"


def _jpeg(pixels: np.ndarray) -> str:
    """(H, W, C) in [0, 1] -> base64 of a JPEG."""
    array = np.ascontiguousarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))
    buffer = BytesIO()
    Pil.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(buffer, format="JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()


def _sides(columns: str | None) -> dict[str, str]:
    """Letters at the left and right edge of a picture whose columns run to ``columns``; none when that is unknown."""
    return {"left": "R", "right": "L"} if columns == "L" else {"left": "L", "right": "R"} if columns == "R" else {}


def _picture(image: Image) -> Embedded:
    turning = upright(image.orientation)
    height, width = image.pixels.shape[1:]
    size = _within(height, width, PICTURE_SIZE)
    grey = image.pixels if image.unit == "display" else apply_window(image.pixels, percentile_window(image.pixels))
    pixels = turning.pixels(resize_image(grey, size).transpose(1, 2, 0))
    row, column = image.spacing_mm or (1.0, 1.0)
    tall, wide = turning.spacing((height * row, width * column))
    about = {
        "type": "picture",
        "width": wide,
        "height": tall,
        "letters": _sides(turning.orientation[1] if turning.orientation else None),
        "said": _said_smaller((height, width), size, "pixels"),
    }
    return Embedded(about=about, text=_jpeg(pixels), turning=turning)


def _clip(video: Video) -> Embedded:
    total, _, height, width = video.frames.shape
    chosen = np.unique(np.linspace(0, total - 1, FRAMES).round().astype(int))
    size = _within(height, width, FRAME_SIZE)
    row, column = video.spacing_mm or (1.0, 1.0)
    frames = [_jpeg(resize_image(video.frames[place], size).transpose(1, 2, 0)) for place in chosen]
    about = {
        "type": "clip",
        "width": width * column,
        "height": height * row,
        "times": [round(float(video.times_s[place]), 3) for place in chosen],
        "letters": {},
        "said": f"{len(chosen)} of {total} frames; {_said_smaller((height, width), size, 'pixels')}",
    }
    return Embedded(about=about, text=" ".join(frames))


def _scan_of_image(image: Image) -> Embedded:
    turning = upright(image.orientation)
    height, width = image.pixels.shape[1:]
    size = _within(height, width, PICTURE_SIZE)
    pixels = turning.pixels(resize_image(image.pixels, size).transpose(1, 2, 0))[:, :, 0]
    spacing = None
    if image.spacing_mm is not None:
        spacing = turning.spacing((image.spacing_mm[0] * height / size[0], image.spacing_mm[1] * width / size[1]))
    about, text = _packed(pixels[None], image.unit, image.window)
    about |= {
        "spacing": [1.0, *(spacing or (1.0, 1.0))],
        "letters": _sides(turning.orientation[1] if turning.orientation else None),
        "said": _said_smaller((height, width), size, "pixels"),
    }
    return Embedded(about=about, text=text, turning=turning)


def _scan(volume: Volume, share: float) -> Embedded:
    """Volumes come from the readers in CANONICAL_ORIENTATION, or with an orientation that is not known."""
    depth, height, width = volume.voxels.shape
    sizes = [(min(depth, slices), *_within(height, width, side)) for side, slices in STACK_SIZES]
    size = next((one for one in sizes if BYTES_A_VOXEL * one[0] * one[1] * one[2] <= share), sizes[-1])
    about, text = _packed(resize_volume(volume.voxels, size), volume.unit, volume.window)
    spacing = volume.spacing_mm or (1.0, 1.0, 1.0)
    about |= {
        "spacing": [mm * old / new for mm, old, new in zip(spacing, volume.voxels.shape, size, strict=True)],
        "millimetres": volume.spacing_mm is not None,
        "oriented": volume.orientation is not None,
        "letters": _sides("L" if volume.orientation is not None else None),
        "said": _said_smaller(volume.voxels.shape, size, "voxels (slices × rows × columns)"),
    }
    return Embedded(about=about, text=text)


def _packed(values: np.ndarray, unit: str, window: Window | None) -> tuple[dict[str, Any], str]:
    """(D, H, W) -> what the viewer must know, and the numbers.

    Each number is its difference from its neighbour on the left, zigzag (small differences of either sign become small
    numbers), all low bytes before all high bytes: noise and what compresses stay apart.
    """
    low, high = HU_RANGE if unit == "HU" else (float(values.min()), float(values.max()))
    step = (high - low) / LEVELS if high > low else 1.0
    levels = np.clip(np.round((values - low) / step), 0, LEVELS).astype(np.int32)
    differences = np.diff(levels, axis=2, prepend=0)
    zigzag = ((differences << 1) ^ (differences >> 31)).astype(np.uint16)
    planes = (zigzag & 255).astype(np.uint8).tobytes() + (zigzag >> 8).astype(np.uint8).tobytes()
    shown = window or (HU_WINDOWS["lung"] if unit == "HU" else percentile_window(values))
    about = {
        "type": "scan",
        "shape": list(values.shape),
        "low": low,
        "step": step,
        "unit": unit,
        "window": [float(shown[0]), float(shown[1])],
        "presets": {name: list(pair) for name, pair in PRESETS.items()} if unit == "HU" else {},
    }
    return about, base64.b64encode(gzip.compress(planes, 6, mtime=0)).decode()


@dataclass
class Album:
    """The visuals of a page: each once, as long as its budget lasts; then why one is not there.

    Attributes:
        read: of visuals.
        budget: bytes that all of them may take together.
        share: of a scan; see embed.
        full: one did not fit, so no further one is read.
    """

    read: Reader
    budget: float
    share: float = float("inf")
    pages: list[Embedded] = field(default_factory=list)
    spent: int = 0
    full: bool = False
    _places: dict[tuple[str, str, str], int | str] = field(default_factory=dict)

    def place_of(self, ref: VisualRef, root: Path) -> int | str:
        """Where in ``pages`` the visual lies, or why it is not embedded."""
        key = (ref.kind, str(root / ref.path), repr(sorted(ref.options.items())))
        if key not in self._places:
            self._places[key] = self._added(ref, root)
        return self._places[key]

    def _added(self, ref: VisualRef, root: Path) -> int | str:
        if self.full:
            return NO_ROOM
        try:
            made = embed(self.read(ref, root), share=self.share)
        except BadSample as bad:
            return bad.reason
        if self.spent + len(made.text) > self.budget:
            # What is smaller might still fit, but the order of the cases would no longer say which are there.
            self.full = True
            return NO_ROOM
        self.pages.append(made)
        self.spent += len(made.text)
        return len(self.pages) - 1


NO_ROOM = "not embedded: the page has reached its size; write the report again with more --media-megabytes"
NOT_CHOSEN = "not embedded: write the report again with more --gallery (the number of cases that show their picture)"
