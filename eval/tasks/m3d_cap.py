"""M3D-Cap: the text of a Radiopaedia case from one of its CT volumes; 2,000 of the test split."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipes import m3d_cap
from medvlm.data_recipes.recipes.m3d_cap import PROMPT, RECIPE
from medvlm.data_recipes.sample import Sample
from medvlm.eval.task import Published, Task
from medvlm.eval.tasks.drawn_volumes import draw_npy


def read(folder: Path) -> Iterator[Sample | BadSample]:
    """The report question of each volume of the test split.

    Raises:
        BadSample: there is no table.
    """
    if m3d_cap.table_of(folder) is None:
        raise BadSample(f"no {m3d_cap.TABLE} is here", where=str(folder), mend=f"download it from {RECIPE.url}")
    yield from m3d_cap.table_samples(folder, only="test")


def example(folder: Path) -> None:
    """Thirty volumes of fifteen cases for the test, and one for training; the prepared layout."""
    content: dict[str, list[dict[str, str]]] = {"train": [], "validation": [], "test": []}
    for case in range(16):
        place = f"M3D_Cap_npy/ct_{'case' if case % 2 else 'quizze'}/{800 + case:06d}"
        for series in ("Axial_drawn", "Coronal_drawn"):
            draw_npy(folder / place / f"{series}.npy")
            row = {"image": f"{place}/{series}.npy", "text": f"{place}/text.txt"}
            content["train" if case == 15 else "test"].append(row)
        (folder / place / "text.txt").write_text(
            f"An invented bright block of {case + 4} mm in {('the liver', 'a kidney', 'the spleen')[case % 3]}. "
            f"{'No free fluid.' if case % 2 else 'A little free fluid.'}\n",
            encoding="utf-8",
        )
    (folder / "M3D_Cap_npy" / m3d_cap.TABLE).write_text(json.dumps(content, indent=1), encoding="utf-8")


_SOURCE = "Med3DVLM (2025), as quoted by reports on it"
_HOW = (
    "differs: METEOR of the evaluate library or another one (14.38 and 36.42 are not from one implementation), mean of "
    "sentences; for M3D-LaMed the prompt is drawn at random for every item; ours comes from the program of 1.5"
)

TASK = Task(
    name="m3d-cap",
    version=1,
    title="M3D-Cap: the findings of 2,000 CT volumes",
    about=(
        f'One report question a volume, always the same: "{PROMPT}". The reference is the text of the case, '
        "which its other volumes share."
    ),
    folder="m3d",
    read=read,
    n=2000,
    n_source="the paper's test split, as evaluations of others report; not counted here (no copy of M3D_Cap.json was "
    "seen)",
    example=example,
    licence=RECIPE.licence,
    url=RECIPE.url,
    citation=RECIPE.citation,
    access="gated",
    published=tuple(
        Published(metric="coco_meteor", value=value, model=model, source=_SOURCE, how=_HOW)
        for model, value in (("M3D-LaMed", 0.1438), ("Med3DVLM", 0.3642))
    ),
    faults=(
        "The authors' evaluation draws one of many prompts at random for every item, so that figures depend on the "
        "seed and on the order; here every volume is asked with one sentence.",
        *RECIPE.faults,
        "BLEU-1, ROUGE-1 and METEOR are means of sentences there; no CIDEr, no clinical score.",
        "The authors' loader replaces a volume that cannot be read by another, drawn at random; here it is refused.",
        "Others report parts of 1,000 (test1k): another task.",
    ),
)
