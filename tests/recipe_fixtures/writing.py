"""How fixtures write files: real pictures, volumes and tables of synthetic content."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image


@dataclass(frozen=True, kw_only=True)
class Fixture:
    """A few rows of one dataset in its published layout.

    Attributes:
        recipe: name of the recipe that must match, and no other.
        write: fills a folder with what is whole.
        spoil: damages a folder that ``write`` filled.
        refusals: every BadSample of the spoilt folder, as text, ``{folder}`` standing for it; the whole folder has
            none.
        samples: how many samples the whole folder gives.
    """

    recipe: str
    write: Callable[[Path], None]
    spoil: Callable[[Path], None]
    refusals: tuple[str, ...]
    samples: int


def picture(path: Path, *, size: tuple[int, int] = (12, 10), seed: int = 0) -> None:
    """A grey picture of (height, width), of the format that the name ends in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)).save(path)


def volume(path: Path, *, seed: int = 0) -> None:
    """A NIfTI volume of 6 x 8 x 5 voxels of 0.75 x 0.75 x 1.5 mm whose header rescales to Hounsfield units."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = np.random.default_rng(seed).integers(0, 2000, (6, 8, 5), dtype=np.int16)
    image = nibabel.Nifti1Image(stored, np.diag([0.75, 0.75, 1.5, 1.0]))
    image.header.set_slope_inter(1.0, -1024.0)
    nibabel.save(image, path)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def json_file(path: Path, content: object) -> None:
    text(path, json.dumps(content, ensure_ascii=False))


def json_lines(path: Path, rows: list[dict[str, object]]) -> None:
    text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def table(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def replace(path: Path, old: str, new: str) -> None:
    """Change one place of a text file; the place must be there."""
    content = path.read_text(encoding="utf-8")
    assert old in content, f"{path.name} does not hold {old!r}"
    path.write_text(content.replace(old, new, 1), encoding="utf-8")
