"""What lies in a folder of mixed clinical files: datasets that a recipe knows, loose visuals, everything else."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers.content import Format, format_of, header_of_pair
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.recipes import RECIPES

VISUAL_NAMES = (
    ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".heic", ".dcm", ".dicom", ".ima",
    ".nii", ".nii.gz", ".hdr", ".img", ".mgh", ".mgz", ".mnc", ".mha", ".mhd", ".nrrd", ".npy", ".mp4", ".m4v",
    ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv",
)  # fmt: skip
"""A file of such a name says that it is a visual; when it is none, that is a fault worth telling."""


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """Every file under a folder, once.

    Attributes:
        datasets: (recipe, folder) in the order found.
        loose: (file, format) that a reader knows by content.
        refused: files that call themselves visuals and are none, or that cannot be opened.
        other_files: how many files are neither (text, tables, halves of pairs, hidden files).
    """

    datasets: tuple[tuple[Recipe, Path], ...]
    loose: tuple[tuple[Path, Format], ...]
    refused: tuple[BadSample, ...]
    other_files: int


def take_inventory(folder: Path, *, leave_out: Path | None = None) -> Inventory:
    """Look at every file under ``folder``; datasets are sought from the top down, so the outermost match wins.

    Args:
        leave_out: a folder below ``folder`` that is not looked into (what comes out of a walk); absolute.

    Raises:
        NotADirectoryError: there is no such folder.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder; give the folder that holds the files")
    datasets: list[tuple[Recipe, Path]] = []
    owned: set[Path] = set()
    files: list[Path] = []
    hidden = 0
    unlisted: list[OSError] = []
    for place, names, leaves in os.walk(folder, onerror=unlisted.append):
        here = Path(place)
        names[:] = [name for name in names if here / name != leave_out]
        hidden_folders = [name for name in names if name.startswith(".")]
        hidden += sum(len(found) for name in hidden_folders for _, _, found in os.walk(here / name))
        names[:] = sorted(name for name in names if not name.startswith("."))
        for recipe in RECIPES:
            if recipe.matches(here) and not _inside(here, recipe, datasets):
                datasets.append((recipe, here))
                owned |= recipe.files(here)
        files += [here / leaf for leaf in sorted(leaves)]
    loose: list[tuple[Path, Format]] = []
    refused = [
        BadSample(
            f"the folder cannot be listed ({error.strerror})", where=str(error.filename), mend="check its permissions"
        )
        for error in unlisted
    ]
    other = hidden
    for path in files:
        if path in owned:
            continue
        verdict = _look(path)
        if isinstance(verdict, BadSample):
            refused.append(verdict)
        elif verdict is None:
            other += 1
        else:
            loose.append((path, verdict))
    return Inventory(datasets=tuple(datasets), loose=tuple(loose), refused=tuple(refused), other_files=other)


def _inside(here: Path, recipe: Recipe, datasets: list[tuple[Recipe, Path]]) -> bool:
    """Layouts that may be entered at two depths (Open-i, PubMedQA, 3D-RAD) must not be built twice."""
    return any(known is recipe and folder in here.parents for known, folder in datasets)


def _look(path: Path) -> Format | BadSample | None:
    named = path.name.lower().endswith(VISUAL_NAMES) and not path.name.startswith(".")
    mend = "replace the file by a whole copy, or remove it"
    try:
        if path.name.startswith(".") or header_of_pair(path) != path:
            return None
        if path.stat().st_size == 0:
            return BadSample("the file is empty", where=str(path), mend=mend) if named else None
        found = format_of(path)
    except zlib.error:
        return BadSample("the gzip data are damaged from the start", where=str(path), mend=mend)
    except OSError as error:
        return BadSample(f"cannot be opened ({error.strerror})", where=str(path), mend="check its permissions")
    if found == "archive":
        return None  # which of its arrays are pictures, only a recipe knows
    if found is None and named:
        return BadSample(
            f"named {path.suffix!r}, but its content is no picture, DICOM, NIfTI, NPY or clip that is read here",
            where=str(path),
            mend=mend,
        )
    return found
