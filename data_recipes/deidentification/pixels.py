"""Text burned into pixels: found by OCR (pytesseract and tesseract, both optional), and hinted at by headers.

OCR misses small, faint, tilted and handwritten text. Where it finds nothing, nothing is promised.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from PIL import Image as Picture
from pydicom.dataset import Dataset

from medvlm.model.visual import Image, Video, Visual, Volume

LEAST_CONFIDENCE = 55.0
"""Percent below which a word of tesseract is taken for texture of the picture."""

_SHORT_CONFIDENCE = 90.0
"""Percent that a word of two characters needs."""

MOST_FRAMES = 8
"""Frames of a volume or a clip that are looked at, evenly spread: burned-in text stands in all or in few."""

_SMALL = 900
"""Longest side in pixels below which a picture is enlarged: tesseract wants letters of about 20 pixels."""


@dataclass(frozen=True, kw_only=True)
class TextBox:
    """A word in a picture.

    Attributes:
        low: (row, column) of its first pixel; (frame, row, column) in a volume or a clip.
        high: one past its last pixel, in the same axes.
        characters: how many letters and digits were read; the word itself is never kept.
        kinds: of identifiers (medvlm.data_recipes.deidentification.text.Kind) that rules see in its line.
    """

    low: tuple[int, ...]
    high: tuple[int, ...]
    characters: int
    kinds: tuple[str, ...] = ()


def available() -> str | None:
    """Why there is no OCR here, with the command that helps; None when there is."""
    if find_spec("pytesseract") is None:
        return "pytesseract is not installed; pip install 'medvlm[deid]'"
    if shutil.which("tesseract") is None:
        return "the program tesseract is not installed; apt-get install tesseract-ocr (or brew install tesseract)"
    return None


def burned_in_text(visual: Visual, *, confidence: float = LEAST_CONFIDENCE) -> tuple[TextBox, ...]:
    """Words of two or more letters or digits that OCR reads in ``visual``; of MOST_FRAMES slices or frames at most.

    Grey values are stretched from the lowest to the highest (of a CT: from -1000 to 1000 HU) and read three times,
    since tesseract is made for black on white: as they are, inverted, and with the brightest pixels alone as ink.

    Raises:
        RuntimeError: there is no OCR; the message is that of :func:`available`.
    """
    return tuple(box for box, _ in words_in(visual, confidence=confidence))


def words_in(visual: Visual, *, confidence: float = LEAST_CONFIDENCE) -> Iterator[tuple[TextBox, str]]:
    """The boxes with their words, for the search of known names; words must not be written anywhere.

    Raises:
        RuntimeError: there is no OCR.
    """
    missing = available()
    if missing is not None:
        raise RuntimeError(f"no OCR: {missing}")
    for frame, plane in _planes(visual):
        found: dict[tuple[int, ...], tuple[TextBox, str]] = {}
        for shown in (plane, 255 - plane, *_brightest(plane)):
            for box, word in _read(shown, confidence):
                key = tuple((a + b) // 32 for a, b in zip(box.low, box.high, strict=True))
                if key not in found or found[key][0].characters < box.characters:
                    found[key] = (box, word)
        for box, word in found.values():
            prefix = () if frame is None else (frame,)
            after = () if frame is None else (frame + 1,)
            yield TextBox(low=prefix + box.low, high=after + box.high, characters=box.characters, kinds=box.kinds), word


def _planes(visual: Visual) -> Iterator[tuple[int | None, np.ndarray]]:
    """(frame or None, (H, W) uint8) of what is looked at."""
    if isinstance(visual, Image):
        yield None, _grey(visual.pixels.mean(axis=0), visual.unit)
        return
    frames = visual.voxels if isinstance(visual, Volume) else visual.frames
    unit = visual.unit if isinstance(visual, Volume) else "display"
    for place in np.unique(np.linspace(0, len(frames) - 1, min(MOST_FRAMES, len(frames))).round().astype(int)):
        plane = frames[place]
        yield int(place), _grey(plane.mean(axis=0) if isinstance(visual, Video) else plane, unit)


def _grey(plane: np.ndarray, unit: str) -> np.ndarray:
    low, high = (-1000.0, 1000.0) if unit == "HU" else (float(plane.min()), float(plane.max()))
    scaled = (np.clip(plane, low, high) - low) / max(high - low, 1e-6)
    return (255 * scaled).round().astype(np.uint8)


def _brightest(plane: np.ndarray) -> Iterator[np.ndarray]:
    """The brightest pixels in black on white, where they are few: the ink of annotations."""
    ink = plane >= 0.85 * plane.max()
    if 0 < ink.mean() < 0.2:
        yield np.where(ink, 0, 255).astype(np.uint8)


def _read(plane: np.ndarray, confidence: float) -> Iterator[tuple[TextBox, str]]:
    import pytesseract

    from medvlm.data_recipes.deidentification.text import find_identifiers

    picture = Picture.fromarray(plane)
    scale = 1 if max(picture.size) >= _SMALL else -(-_SMALL // max(picture.size))
    if scale > 1:
        picture = picture.resize((picture.width * scale, picture.height * scale), Picture.Resampling.LANCZOS)
    table = pytesseract.image_to_data(picture, config="--psm 11", output_type=pytesseract.Output.DICT)
    lines: dict[tuple[int, int, int], list[int]] = {}
    for row, (word, sure) in enumerate(zip(table["text"], table["conf"], strict=True)):
        letters = re.sub(r"[\W_]", "", word)
        least = max(confidence, _SHORT_CONFIDENCE) if len(letters) == 2 else confidence
        if float(sure) >= least and len(letters) >= 2 and len(set(letters.lower())) > 1:
            key = (table["block_num"][row], table["par_num"][row], table["line_num"][row])
            lines.setdefault(key, []).append(row)
    for rows in lines.values():
        kinds = tuple(sorted({one.kind for one in find_identifiers(" ".join(table["text"][row] for row in rows))}))
        for row in rows:
            left, top = table["left"][row] // scale, table["top"][row] // scale
            right = -(-(table["left"][row] + table["width"][row]) // scale)
            bottom = -(-(table["top"][row] + table["height"][row]) // scale)
            word = table["text"][row]
            yield (
                TextBox(
                    low=(top, left),
                    high=(min(bottom, plane.shape[0]), min(right, plane.shape[1])),
                    characters=len(re.sub(r"[\W_]", "", word)),
                    kinds=kinds,
                ),
                word,
            )


def header_hints(dataset: Dataset) -> tuple[str, ...]:
    """What in a DICOM header makes burned-in text likely; () when nothing does.

    BurnedInAnnotation YES (PS3.3 C.7.6.1.1.2), secondary captures, ultrasound (whose regions leave a rim for text), and
    derived or screen-saved images.
    """
    hints = []
    if str(dataset.get("BurnedInAnnotation", "")).upper() == "YES":
        hints.append("BurnedInAnnotation is YES")
    storage = str(dataset.get("SOPClassUID", ""))
    if storage.startswith("1.2.840.10008.5.1.4.1.1.7") or "ConversionType" in dataset:
        hints.append("secondary capture")
    if str(dataset.get("Modality", "")) in ("US", "IVUS", "ES", "XC", "OT", "SC"):
        hints.append(f"modality {dataset.Modality}")
    if dataset.get("SequenceOfUltrasoundRegions"):
        hints.append("ultrasound regions")
    image_type = [str(part).upper() for part in dataset.get("ImageType") or ()]
    if "SCREEN SAVE" in image_type or "SAVE" in " ".join(image_type[2:]):
        hints.append("screen save")
    return tuple(hints)
