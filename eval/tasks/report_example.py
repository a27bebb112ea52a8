"""Made-up reports with drawn pictures in the layout of ReXrank: for the self-test and for tests, never data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Picture

COUNT = 30
_PRESENT = (
    "There is a small {side} pleural effusion",
    "There is mild {side} basilar atelectasis",
    "There is a patchy opacity in the {side} lower lobe",
    "A {size} mm nodule lies in the {side} upper lobe",
    "There is a {size} mm {side} apical pneumothorax",
    "There is mild cardiomegaly",
    "A calcified granuloma of {size} mm lies in the {side} lung",
    "The costophrenic angles are sharp",
)
_DENIED = (("pleural effusion", "effusion"), ("pneumothorax", "pneumothorax"), ("consolidation", "consolidation"))
_REASONS = ("Cough for {size} days.", "Chest pain.", "Shortness of breath.", "Fever and cough, day {size}.", "XXXX")


def report(number: int) -> tuple[str, str]:
    """(findings, impression) of the made-up study ``number``."""
    side, size = ("left", "right")[number // len(_PRESENT) % 2], 4 + number
    present = _PRESENT[number % len(_PRESENT)].format(side=side, size=size)
    denied = [name for name, word in _DENIED if word not in present]
    heart = "" if "cardiomegaly" in present else " The heart size is normal."
    absent = f"No {', '.join(denied[:-1])} or {denied[-1]}."
    return f"{present}.{heart} {absent}", f"{present}." if number % len(_PRESENT) != 7 else f"Clear lungs, film {size}."


def draw(path: Path, number: int, *, size: int = 48) -> None:
    """A grey picture that no other number has."""
    generator = np.random.default_rng(number)
    pixels = np.tile(np.linspace(40, 120, size), (size, 1)) + generator.normal(0, 6, (size, size))
    row, column = generator.integers(4, size - 12, 2)
    pixels[row : row + 8, column : column + 8] += 90
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


def indication(number: int) -> str:
    return _REASONS[number % len(_REASONS)].format(size=2 + number)


def write(file: Path, pictures: Path, record: Callable[[int], tuple[str, dict[str, Any]]], count: int = COUNT) -> None:
    """Write ``count`` studies: ``file`` as ReXrank writes it (NaN for an absent section), and their pictures.

    Args:
        record: number -> (study id, record).
    """
    studies = dict(record(number) for number in range(count))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(studies, indent=1), encoding="utf-8")
    drawn = 0
    for one in studies.values():
        for path in one["image_path"]:
            draw(pictures / path.lstrip("/"), drawn)
            drawn += 1


def hexadecimal(number: int) -> str:
    """Looks like a name of an image of MIMIC-CXR."""
    digest = hashlib.sha256(f"made up {number}".encode()).hexdigest()
    return "-".join(digest[start : start + 8] for start in range(0, 40, 8))
