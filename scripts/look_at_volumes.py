"""Pictures of the volumes of a folder, with letters, so that a person can see whether sides are right.

    python -m medvlm.scripts.look_at_volumes FOLDER --out look.png

Every volume below FOLDER is read as training reads it and shown in one row: the middle axial slice as seen from the
feet, the middle coronal one from the front, the middle sagittal one from the patient's left, all with the proportions
of the body. The letters stand where the reader says that the patient's Right, Left, Anterior, Posterior, Superior and
Inferior side is; a volume whose file does not state its orientation has none.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw, ImageFont
from rich.console import Console
from rich.progress import track

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers import read, sniff
from medvlm.data_recipes.sample import VisualRef
from medvlm.model.geometry import OPPOSITE, resize_image
from medvlm.model.intensity import apply_window, percentile_window
from medvlm.model.visual import CANONICAL_ORIENTATION, Volume

TILE, GAP, CAPTION = 300, 6, 20
HEAD_AND_BODY_HU = (-160.0, 240.0)

CHOICES: tuple[dict[str, Any], ...] = ({}, {"time_index": 0}, {"resample_gaps": True})
"""What a manifest may have to say before a reader gives a volume; tried in this order, and named in the caption."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A plane through a volume with axes to Superior, Posterior, Left, and how it is turned upright.

    Attributes:
        name: of the plane.
        axis: of the array, which the plane cuts.
        up, left: the letters on top and at the viewer's left once it is turned.
        flip_rows, flip_columns: how it is turned.
    """

    name: str
    axis: int
    up: str
    left: str
    flip_rows: bool
    flip_columns: bool


VIEWS = (
    View(name="axial", axis=0, up="A", left="R", flip_rows=False, flip_columns=False),
    View(name="coronal", axis=1, up="S", left="R", flip_rows=True, flip_columns=False),
    View(name="sagittal", axis=2, up="S", left="A", flip_rows=True, flip_columns=False),
)


def find_volumes(folder: Path) -> list[Path]:
    """Files that are volumes, and folders of slices; files without a readable header are passed over."""
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        folders.sort()
        here = Path(place)
        if _kind(here) == "volume":
            found.append(here)
            continue
        found += [here / name for name in sorted(files) if _kind(here / name) == "volume"]
    return found


def _kind(path: Path) -> str | None:
    try:
        return sniff(path)
    except BadSample:
        return None


def load(name: str, folder: Path) -> tuple[Volume, str]:
    """The volume, and what was chosen to read it: the first of a 4D file, uneven slices made even.

    Raises:
        BadSample: of the first reading, when no choice helps.
    """
    for number, options in enumerate(CHOICES):
        try:
            volume = read(VisualRef(kind="volume", path=name, options=options), folder)
        except BadSample as bad:
            if number == 0:
                first = bad
            continue
        if isinstance(volume, Volume):
            return volume, "".join(f"  {key}={value}" for key, value in options.items())
    raise first


def tile(volume: Volume, view: View) -> Pil.Image:
    """One plane, upright, as large as fits in TILE, with its four letters."""
    plane = np.take(volume.voxels, volume.voxels.shape[view.axis] // 2, axis=view.axis)
    spacing = [s for axis, s in enumerate(volume.spacing_mm or (1.0, 1.0, 1.0)) if axis != view.axis]
    if view.flip_rows:
        plane = plane[::-1]
    if view.flip_columns:
        plane = plane[:, ::-1]
    window = HEAD_AND_BODY_HU if volume.unit == "HU" else percentile_window(volume.voxels)
    height, width = (n * s for n, s in zip(plane.shape, spacing, strict=True))
    scale = TILE / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    grey = resize_image(apply_window(plane, window)[None], size)[0]
    picture = Pil.new("RGB", (TILE, TILE))
    at = ((TILE - size[1]) // 2, (TILE - size[0]) // 2)
    picture.paste(Pil.fromarray((grey * 255).round().astype(np.uint8)).convert("RGB"), at)
    if volume.orientation == CANONICAL_ORIENTATION:
        middle, end = TILE // 2, TILE - 4
        _write(picture, (middle, 3), view.up, "mt")
        _write(picture, (middle, end), OPPOSITE[view.up], "mb")
        _write(picture, (4, middle), view.left, "lm")
        _write(picture, (end, middle), OPPOSITE[view.left], "rm")
    return picture


def _write(picture: Pil.Image, at: tuple[int, int], text: str, anchor: str) -> None:
    font = ImageFont.load_default(14)
    ImageDraw.Draw(picture).text(
        at, text, fill=(255, 214, 10), anchor=anchor, font=font, stroke_width=2, stroke_fill=(0, 0, 0)
    )


def row(volume: Volume, name: str) -> Pil.Image:
    """The three views beside each other under a caption."""
    picture = Pil.new("RGB", (3 * TILE + 2 * GAP, TILE + CAPTION))
    spacing = "x".join(f"{s:.2f}" for s in volume.spacing_mm) + " mm" if volume.spacing_mm else "spacing unknown"
    size = "x".join(map(str, volume.voxels.shape))
    orientation = volume.orientation or "orientation unknown"
    _write(picture, (3, 2), f"{name}   {size}   {spacing}   {orientation}   {volume.unit}", "lt")
    for number, view in enumerate(VIEWS):
        picture.paste(tile(volume, view), (number * (TILE + GAP), CAPTION))
    return picture


def main(arguments: list[str] | None = None) -> int:
    """Write the picture; say what could not be read. Returns 1 when something could not, 2 when nothing could."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write; never commit pictures of patients")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    rows, refused = [], 0
    for path in track(find_volumes(options.folder), "read", console=console, disable=not console.is_terminal):
        name = str(path.relative_to(options.folder))
        try:
            volume, chosen = load(name, options.folder)
        except BadSample as bad:
            refused += 1
            console.print(f"{bad}", style="yellow", markup=False)
            continue
        rows.append(row(volume, name + chosen))
    if not rows:
        print(
            f"{options.folder}: no volume that can be read; give a folder of NIfTI files or DICOM series",
            file=sys.stderr,
        )
        return 2
    sheet = Pil.new("RGB", (rows[0].width, sum(r.height + GAP for r in rows)), (60, 60, 60))
    for number, picture in enumerate(rows):
        sheet.paste(picture, (0, number * (picture.height + GAP)))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = options.out.with_name(f".{options.out.name}.tmp")
    sheet.save(temporary, format="PNG")
    temporary.replace(options.out)
    print(f"{len(rows)} volumes in {options.out}")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
