"""ChestX-ray14: 112,120 frontal radiographs with 14 findings mined from reports, and boxes drawn around about 880.

Wang et al., ChestX-ray8: hospital-scale chest X-ray database and benchmarks, CVPR (2017). Data_Entry_2017*.csv gives
the findings of each picture, separated by "|", and its patient; BBox_List_2017.csv gives x, y, width and height of
boxes in pixels of the published pictures; train_val_list.txt and test_list.txt give the split, which keeps a patient in
one part. Either table will do. Boxes of one finding in one picture are all accepted answers of one question. The
pictures state no spacing (they were resized), so there are no millimetres.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import PIL.Image

from medvlm.data_recipes.asking import YES_NO, ask, visual_at
from medvlm.data_recipes.box_text import to_text
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.grounding import Box, box_of
from medvlm.data_recipes.label_questions import labels_to_ask, spoken
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.sample import Sample, Split, VisualRef
from medvlm.data_recipes.tables import Row, make_samples, read_csv, read_text

LABELS = "Data_Entry_2017*.csv"
FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
NOTHING = "No Finding"
COUNTED = {"Effusion", "Mass", "Nodule", "Hernia"}

TABLE = "BBox_List_2017.csv"
COLUMNS = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]")
"""The header names four columns "Bbox [x,y,w,h]" without quotes, which a comma separated table reads as four names."""

BOXES = "chestx-ray14-boxes"
"""How sample ids of box questions begin: boxes were built before labels, and an id never changes."""

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


def _picture(name: str, where: str, paths: dict[str, Path], splits: dict[str, Split]) -> tuple[VisualRef, Split]:
    """The picture and its split.

    Raises:
        BadSample: it stands in neither list, or is not there.
    """
    if name not in splits:
        raise BadSample(f"{name} stands in neither list", where=where, mend="use the lists as published")
    if name not in paths:
        raise BadSample(f"the image {name} is missing", where=where, mend="unpack the folders images_*")
    mend = "unpack the folders images_*"
    return visual_at(paths[name], kind="image", where=where, mend=mend, modality="DX"), splits[name]


def _shared(name: str, where: str, ref: VisualRef, split: Split, **facts: str) -> dict[str, Any]:
    return {
        "patient_id": f"{RECIPE.name}/{name.split('_')[0]}", "study_id": f"{RECIPE.name}/{Path(name).stem}",
        "source": RECIPE.name, "licence": RECIPE.licence, "split": split, "visuals": [ref], "where": where,
        "metadata": {"official_split": True, "modality": "DX", **facts},
    }  # fmt: skip


def _boxes(
    name: str, label: str, rows: list[Row], paths: dict[str, Path], splits: dict[str, Split]
) -> Iterator[Sample]:
    where = rows[0].where
    ref, split = _picture(name, where, paths, splits)
    try:
        with PIL.Image.open(ref.path) as picture:
            size = picture.size
    except OSError as error:
        raise BadSample("not a picture", where=ref.path, mend="unpack it again") from error
    texts = list(dict.fromkeys(to_text(_box(row, size)) for row in rows))
    finding = spoken(label, ())
    shared = _shared(name, where, ref, split)
    stem = f"{BOXES}/{Path(name).stem}/{finding.replace(' ', '-')}"
    yield ask(
        sample_id=f"{stem}/box", prompt=f"Where is the {finding}?", answers=texts, kind="box", topic="box", **shared
    )
    yield ask(
        sample_id=f"{stem}/region", prompt=f"What is in {texts[0]}? Answer briefly.", answers=[finding],
        topic="region", **shared,
    )  # fmt: skip


def _labels(row: Row, *, paths: dict[str, Path], splits: dict[str, Split]) -> Iterable[Sample]:
    """Yes/no questions about the findings of one picture."""
    name = row.text("Image Index")
    present = [label.strip() for label in row.text("Finding Labels").split("|")]
    unknown = [label for label in present if label not in (*FINDINGS, NOTHING)]
    if unknown or (NOTHING in present and len(present) > 1):
        reason = f"unknown finding {unknown[0]!r}" if unknown else f"{NOTHING!r} stands beside a finding"
        raise BadSample(reason, where=row.where, mend="use the table as published")
    if row.text("Patient ID").lstrip("0") != name.split("_")[0].lstrip("0"):
        raise BadSample(
            "Patient ID is not the one in the name of the image", where=row.where, mend="use the table as published"
        )
    ref, split = _picture(name, row.where, paths, splits)
    shared = _shared(
        name, row.where, ref, split, view=row.optional("View Position") or "unknown", labels="mined from reports"
    )
    stem = f"{RECIPE.name}/{Path(name).stem}"
    for label in labels_to_ask(present, FINDINGS, key=stem, split=split):
        yield ask(
            sample_id=f"{stem}/{spoken(label, ()).replace(' ', '-')}",
            prompt=f"Does this chest radiograph show {spoken(label, COUNTED)}?",
            answers=["yes" if label in present else "no"], kind="closed", choices=YES_NO, topic="presence", **shared,
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
    paths = {path.name: path for path in sorted(folder.glob("images*/**/*.png"))}
    if (folder / TABLE).is_file():
        yield from _build_boxes(folder, paths, splits)
    for table in sorted(folder.glob(LABELS)):
        rows = read_csv(table, required=("Image Index", "Finding Labels", "Patient ID"))
        yield from make_samples(rows, partial(_labels, paths=paths, splits=splits))


def _build_boxes(folder: Path, paths: dict[str, Path], splits: dict[str, Split]) -> Iterator[Sample | BadSample]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in read_csv(folder / TABLE, required=COLUMNS):
        if isinstance(row, BadSample):
            yield row
            continue
        try:
            groups.setdefault((row.text("Image Index"), row.text("Finding Label")), []).append(row)
        except BadSample as bad:
            yield bad
    for (name, label), rows in groups.items():
        try:
            yield from list(_boxes(name, label, rows, paths, splits))
        except BadSample as bad:
            yield bad


RECIPE = Recipe(
    name="chestx-ray14",
    version="NIH Clinical Center (2017)",
    licence="no restriction, with attribution (NIH Clinical Center)",
    url="https://nihcc.app.box.com/v/ChestXray-NIHCC",
    citation="Wang et al., CVPR (2017)",
    owned=(TABLE, "Data_Entry_2017*.csv", *LISTS, "images*/**/*.png"),
    matches=lambda folder: (folder / TABLE).is_file() or any(folder.glob(LABELS)),
    build=_build,
    about=(
        "112,120 frontal chest radiographs of 30,805 patients (NIH Clinical Center) with 14 findings, and 984 boxes "
        "that a radiologist drew around findings of about 880 of them. Either table will do, and any of the twelve "
        "archives of pictures; a picture that a table names and that is not there is refused by name."
    ),
    layout="FOLDER/\n  Data_Entry_2017.csv or Data_Entry_2017_v2020.csv\n  BBox_List_2017.csv\n"
    "  train_val_list.txt\n  test_list.txt\n  images/*.png, or images_001/images/*.png to images_012",
    questions=(
        "closed: one yes/no question per finding; training asks for the present findings and as many absent ones (one "
        "when there is none), test for all 14",
        "box: where a finding is",
        "open: what is in a box",
    ),
    faults=(
        "The findings were mined from reports by rules, not read from the pictures; radiologists who looked again "
        "disagree with many of them. Samples say `labels: mined from reports` in their metadata.",
        "Pictures were resized to 1024 x 1024: the spacing of the table is that of the originals and is not used.",
        'The boxes say "Infiltrate" where the findings say "Infiltration"; each is asked in its own word.',
        "There is no official validation split. train_val_list.txt is training; keep some of its patients apart.",
        "A few ages above 100 in the table are typing errors; ages are not used.",
    ),
    measured=(
        "The published table of boxes with stand-in pictures of 1024 x 1024: 984 rows about 880 pictures give 1,968 "
        "samples, none refused; no box leaves its picture. The table of findings was not at hand."
    ),
)
