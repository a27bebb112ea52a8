"""ChestX-ray14: the boxes that a radiologist drew around findings of about 880 frontal radiographs.

Wang et al., ChestX-ray8: hospital-scale chest X-ray database and benchmarks, CVPR (2017). BBox_List_2017.csv gives x,
y, width and height in pixels of the published pictures; train_val_list.txt and test_list.txt give the split. Boxes of
one finding in one picture are all accepted answers of one question. The labels of pictures without boxes were mined
from reports and are not built. The pictures state no spacing (they were resized), so there are no millimetres.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image

from medvlm.data_recipes.asking import ask, visual_at
from medvlm.data_recipes.box_text import to_text
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.grounding import Box, box_of
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.sample import Sample, Split
from medvlm.data_recipes.tables import Row, read_csv, read_text

TABLE = "BBox_List_2017.csv"
COLUMNS = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]")
"""The header names four columns "Bbox [x,y,w,h]" without quotes, which a comma separated table reads as four names."""

LISTS: dict[str, Split] = {"train_val_list.txt": "train", "test_list.txt": "test"}


def _splits(folder: Path) -> dict[str, Split]:
    return {
        name: split
        for file, split in LISTS.items()
        for name in (read_text(folder / file).split() if (folder / file).is_file() else ())
    }


def _box(row: Row, size: tuple[int, int]) -> Box:
    """The box in fractions of a picture of (width, height) pixels; up to a pixel outside is rounding.

    Raises:
        BadSample: no numbers, no extent, or outside the picture.
    """
    try:
        x, y, w, h = (float(row.text(name)) for name in COLUMNS[2:])
    except ValueError as error:
        raise BadSample("the box has no four numbers", where=row.where, mend="correct the row") from error
    width, height = size
    low, high = (x, y), (x + w, y + h)
    if w <= 0 or h <= 0 or min(low) < -1 or high[0] > width + 1 or high[1] > height + 1:
        raise BadSample(
            f"the box {x:.0f}, {y:.0f}, {w:.0f}, {h:.0f} leaves the picture of {width} x {height} pixels",
            where=row.where,
            mend="correct the row, or use the pictures as published",
        )
    return box_of(
        [max(value, 0.0) / n for value, n in zip(low, size, strict=True)],
        [min(value, n) / n for value, n in zip(high, size, strict=True)],
    )


def _asked(name: str, label: str, rows: list[Row], path: Path | None, split: Split | None) -> Iterator[Sample]:
    where = rows[0].where
    if split is None:
        raise BadSample(f"{name} stands in neither list", where=where, mend="use the lists as published")
    if path is None:
        raise BadSample(f"the image {name} is missing", where=where, mend="unpack the folders images_*")
    ref = visual_at(path, kind="image", where=where, mend="unpack the folders images_*", modality="DX")
    try:
        with PIL.Image.open(path) as picture:
            size = picture.size
    except OSError as error:
        raise BadSample("not a picture", where=str(path), mend="unpack it again") from error
    texts = list(dict.fromkeys(to_text(_box(row, size)) for row in rows))
    finding = label.replace("_", " ").lower()
    shared: dict[str, Any] = {
        "patient_id": f"{RECIPE.name}/{name.split('_')[0]}", "study_id": f"{RECIPE.name}/{Path(name).stem}",
        "source": RECIPE.name, "licence": RECIPE.licence, "split": split, "visuals": [ref], "where": where,
        "metadata": {"official_split": True, "modality": "DX"},
    }  # fmt: skip
    stem = f"{RECIPE.name}/{Path(name).stem}/{finding.replace(' ', '-')}"
    yield ask(
        sample_id=f"{stem}/box", prompt=f"Where is the {finding}?", answers=texts, kind="box", topic="box", **shared
    )
    yield ask(
        sample_id=f"{stem}/region", prompt=f"What is in {texts[0]}? Answer briefly.", answers=[finding],
        topic="region", **shared,
    )  # fmt: skip


def _build(folder: Path) -> Iterator[Sample | BadSample]:
    splits = _splits(folder)
    if not splits:
        yield BadSample(
            f"neither {' nor '.join(LISTS)} is there, so test pictures cannot be told from training pictures",
            where=str(folder),
            mend=f"put both beside {TABLE}, from {RECIPE.url}",
        )
        return
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in read_csv(folder / TABLE, required=COLUMNS):
        if isinstance(row, BadSample):
            yield row
            continue
        try:
            groups.setdefault((row.text("Image Index"), row.text("Finding Label")), []).append(row)
        except BadSample as bad:
            yield bad
    wanted = {name for name, _ in groups}
    paths = {path.name: path for path in sorted(folder.glob("images*/**/*.png")) if path.name in wanted}
    for (name, label), rows in groups.items():
        try:
            yield from list(_asked(name, label, rows, paths.get(name), splits.get(name)))
        except BadSample as bad:
            yield bad


RECIPE = Recipe(
    name="chestx-ray14-boxes",
    version="NIH Clinical Center (2017)",
    licence="no restriction, with attribution (NIH Clinical Center)",
    url="https://nihcc.app.box.com/v/ChestXray-NIHCC",
    citation="Wang et al., CVPR (2017)",
    owned=(TABLE, "Data_Entry_2017*.csv", *LISTS, "images*/**/*.png"),
    matches=lambda folder: (folder / TABLE).is_file(),
    build=_build,
)
