"""Positioning in CT volumes: the box around what a doctor described, from the masks of M3D-RefSeg."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipes.m3d_refseg import COLUMNS, RECIPE, TABLES, case_samples
from medvlm.data_recipes.sample import Sample
from medvlm.eval.task import Task
from medvlm.eval.tasks.drawn_volumes import SHAPE, draw_ct, write_csv, write_nifti


def read(folder: Path) -> Iterator[Sample | BadSample]:
    """Where each described region of the test cases is.

    Raises:
        BadSample: a table is missing: without both, training cases cannot be told from test cases.
    """
    missing = next((table for table in TABLES if not (folder / table).is_file()), None)
    if missing is not None:
        raise BadSample(f"no {missing} is here", where=str(folder), mend=f"download it from {RECIPE.url}")
    for sample in case_samples(folder, only="test"):
        if isinstance(sample, BadSample) or sample.sample_id.endswith("/box"):
            yield sample


def example(folder: Path) -> None:
    """Six test cases with five regions each, and one for training, in the published layout."""
    rows: dict[str, list[list[object]]] = {table: [] for table in TABLES}
    for case in range(7):
        name = f"s{9000 + case}"
        table = "M3D_RefSeg_train.csv" if case == 6 else "M3D_RefSeg_test.csv"
        place = folder / "M3D_RefSeg" / name
        draw_ct(place / "ct.nii.gz")
        mask = np.zeros(SHAPE, np.uint8)
        texts: dict[str, str] = {}
        for region in range(1, 6):
            z, y, x = region - 1, (case + 2 * region) % 8, (3 * case + region) % 9
            mask[z : z + 2, y : y + 2, x : x + 3] = region
            texts[str(region)] = f"An invented block number {region} of case {case}."
            rows[table].append(
                [f"{name}/ct.nii.gz", f"{name}/mask.nii.gz", region, 0, "Please segment it.", "It is [SEG]."]
            )
        write_nifti(place / "mask.nii.gz", mask)
        (place / "text.json").write_text(json.dumps(texts), encoding="utf-8")
    for table, held in rows.items():
        write_csv(folder / table, [COLUMNS[0], "Mask", COLUMNS[1], "Question_Type", "Question", "Answer"], held)


TASK = Task(
    name="m3d-positioning",
    version=1,
    title="Positioning in CT volumes: 3D boxes of described regions (M3D-RefSeg)",
    about=(
        "Where is what is described? The answer is the smallest box around the region's mask; scored by IoU, by how "
        "often it reaches 0.25 and 0.5, and by the distance of the centres in mm. What is no box counts 0."
    ),
    folder="m3d-refseg",
    read=read,
    n=555,
    n_source="AN ESTIMATE, not a count: 20 % (134 of 671 kB) of the 2,778 rows lie in M3D_RefSeg_test.csv by the sizes "
    "on the page of the dataset; no copy was seen. With another number the run needs --partial; please report it",
    example=example,
    licence=RECIPE.licence,
    url=RECIPE.url,
    citation=RECIPE.citation,
    hub="GoodBaiBai88/M3D-RefSeg",
    faults=(
        "The authors' own positioning figures are about organs of one dataset of M3D-Seg (0003), not about RefSeg: "
        "they are not comparable, and none is quoted.",
        "The authors write -1 where no box can be read, which pulls the mean IoU down; here it counts 0, and the share "
        "of unread answers stands beside it.",
        "Their IoU divides by the box around both boxes and not by their union, so that it is too low wherever boxes "
        "differ along more than one axis; their boxes end where the last voxel begins.",
        "Their boxes run along the stored axes (z, y, x as fractions with three decimals); here x, y, z in the "
        "patient's axes, see docs/grounding.md; --box-form m3d reads theirs.",
        *RECIPE.faults,
    ),
)
