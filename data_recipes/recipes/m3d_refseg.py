"""M3D-RefSeg: CT volumes of TotalSegmentator with regions that doctors described; here as boxes.

Bai et al., M3D: advancing 3D medical image analysis with multi-modal large language models (2024), arXiv:2404.00578.
M3D_RefSeg/<case>/ holds ct.nii.gz, mask.nii.gz (a number for each region) and text.json (number -> description); the
two tables say which case is for training and which for testing. Each region becomes its smallest box and two questions:
where is what is described, and what is in the box. The questions of the tables ask for masks and are not used. A case
that any row of the test table names is a test case as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from medvlm.data_recipes.asking import ask, visual_at
from medvlm.data_recipes.box_text import to_text
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.grounding import Box, box_around, extent_of
from medvlm.data_recipes.readers import nifti
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.sample import Sample, Split, VisualRef
from medvlm.data_recipes.tables import read_csv, read_json

TABLES: dict[str, Split] = {"M3D_RefSeg_train.csv": "train", "M3D_RefSeg_test.csv": "test"}
COLUMNS = ("Image", "Mask_ID")
_FETCH = "unpack M3D_RefSeg.zip as published"


def _splits(folder: Path) -> tuple[dict[str, Split], list[BadSample]]:
    """Split of each case; test wins over train, so that no case lies in both."""
    splits: dict[str, Split] = {}
    refused: list[BadSample] = []
    for table, split in TABLES.items():
        if not (folder / table).is_file():
            refused.append(BadSample(f"no table {table}", where=str(folder), mend=f"put it there, from {RECIPE.url}"))
            continue
        for row in read_csv(folder / table, required=COLUMNS):
            if isinstance(row, BadSample):
                refused.append(row)
            elif len(parts := Path(row.written("Image")).parts) >= 2:
                splits[parts[-2]] = split
            else:
                reason = f"Image {row.written('Image')!r} names no folder of a case"
                refused.append(BadSample(reason, where=row.where, mend="use the table as published"))
    return splits, refused


def _regions(case: Path) -> tuple[dict[int, Box], tuple[float, ...]]:
    """Box of each number of the mask, and the field of view in millimetres.

    Raises:
        BadSample: the mask is missing or damaged, or lies on another grid than the CT.
    """
    where = str(case / "mask.nii.gz")
    for name in ("ct.nii.gz", "mask.nii.gz"):
        visual_at(case / name, kind="volume", where=str(case), mend=_FETCH)
    mask = nifti.read(case / "mask.nii.gz")
    grids: list[Any] = [nibabel.load(case / name) for name in ("ct.nii.gz", "mask.nii.gz")]  # type: ignore[attr-defined]
    if grids[0].shape != grids[1].shape or not np.allclose(grids[0].affine, grids[1].affine, atol=1e-3):
        raise BadSample("the mask lies on another grid than ct.nii.gz", where=where, mend=_FETCH)
    if mask.spacing_mm is None:
        raise BadSample("the mask states no spacing", where=where, mend=_FETCH)
    numbers = [int(number) for number in np.unique(mask.voxels) if number > 0 and number == int(number)]
    boxes = {number: box_around(mask.voxels == number) for number in numbers}
    return {number: box for number, box in boxes.items() if box is not None}, extent_of(mask)


def _case(case: Path, split: Split) -> Iterator[Sample | BadSample]:
    boxes, extent = _regions(case)
    texts = read_json(case / "text.json")
    where = str(case / "text.json")
    if not isinstance(texts, dict):
        raise BadSample("text.json is no object", where=where, mend=_FETCH)
    ct = visual_at(case / "ct.nii.gz", kind="volume", where=where, mend=_FETCH, modality="CT", unit="HU")
    for name, description in texts.items():
        box = boxes.get(int(name)) if name.isdigit() else None
        if box is None or not isinstance(description, str) or not description.strip():
            reason = "has no description" if box is not None else "is not in the mask"
            yield BadSample(f"region {name!r} {reason}", where=where, mend="leave the region out")
            continue
        yield from _asked(f"{case.name}/{name}", case.name, split, ct, box, extent, description.strip(), where)


def _asked(
    name: str, case: str, split: Split, ct: VisualRef, box: Box, extent: tuple[float, ...], text: str, where: str
) -> Iterator[Sample]:
    shared: dict[str, Any] = {
        "patient_id": f"totalsegmentator/{case}", "source": RECIPE.name, "licence": RECIPE.licence, "split": split,
        "visuals": [ct], "where": where, "metadata": {"official_split": True, "modality": "CT"},
    }  # fmt: skip
    yield ask(
        sample_id=f"{RECIPE.name}/{name}/box", prompt=f"Where is this: {text}", answers=[to_text(box)], kind="box",
        topic="box", extent_mm=extent, **shared,
    )  # fmt: skip
    yield ask(
        sample_id=f"{RECIPE.name}/{name}/region", prompt=f"Describe what is in {to_text(box)}.", answers=[text],
        topic="region", **shared,
    )  # fmt: skip


def case_samples(folder: Path, *, only: Split | None = None) -> Iterator[Sample | BadSample]:
    """The samples of all cases, or of those of one split; masks of other cases are not read."""
    splits, refused = _splits(folder)
    yield from refused
    if not splits:
        return
    for case in sorted(path.parent for path in (folder / "M3D_RefSeg").glob("*/text.json")):
        if only is not None and splits.get(case.name, only) != only:
            continue
        try:
            if case.name not in splits:
                raise BadSample("neither table names this case", where=str(case), mend="use the tables as published")
            yield from list(_case(case, splits[case.name]))
        except BadSample as bad:
            yield bad


def _matches(folder: Path) -> bool:
    return any((folder / "M3D_RefSeg").glob("*/text.json")) and any((folder / table).is_file() for table in TABLES)


RECIPE = Recipe(
    name="m3d-refseg",
    version="GoodBaiBai88/M3D-RefSeg (2024)",
    licence="Apache-2.0",
    url="https://huggingface.co/datasets/GoodBaiBai88/M3D-RefSeg",
    citation="Bai et al., arXiv:2404.00578 (2024); Wasserthal et al., Radiology: AI 5(5) (2023)",
    owned=("M3D_RefSeg*.csv", "M3D_RefSeg/**/*"),
    matches=_matches,
    build=case_samples,
    about="CT volumes of TotalSegmentator with regions that doctors described, as boxes.",
    layout=(
        "FOLDER/\n  M3D_RefSeg_train.csv\n  M3D_RefSeg_test.csv\n  M3D_RefSeg/<case>/ct.nii.gz, mask.nii.gz, text.json"
    ),
    questions=(
        "box: where the described region is",
        "open: what is in a box",
    ),
    faults=(
        "The questions of the tables ask for masks and are not used.",
        "A case that any row of the test table names is a test case as a whole.",
        "A region of several parts has one box around all.",
    ),
)
