"""CheXpert Plus: the 200 studies of the validation split, which ReXrank uses as a test set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipes.chexpert_plus import RECIPE, ROOTS, samples
from medvlm.data_recipes.sample import Sample
from medvlm.eval.task import Published, Task
from medvlm.eval.tasks import report_example
from medvlm.eval.tasks.report_study import Origin, Study, from_recipe, report_questions
from medvlm.eval.tasks.rexrank import REPOSITORY, read_studies

FILE = "ReXRank_CheXpertPlus.json"

ORIGIN = Origin(
    source="chexpert-plus",
    licence=RECIPE.licence,
    modality="DX",
    mend=f"unpack the PNG archive of {RECIPE.url} into PNG/",
)


def studies(folder: Path) -> Iterator[Study | BadSample]:
    """The studies of the split: of the ReXrank file over the PNG archive, else of the original table.

    Raises:
        BadSample: neither is there.
    """
    if (folder / FILE).is_file():
        roots = [folder / root for root in ROOTS]
        yield from read_studies(folder / FILE, origin=ORIGIN, roots=roots, patient=_patient, split=None)
    elif RECIPE.matches(folder):
        yield from _original(folder)
    else:
        raise BadSample(
            f"neither {FILE} nor the table of CheXpert Plus is here",
            where=str(folder),
            mend=f"get {FILE} from {REPOSITORY} and the images from {RECIPE.url}",
        )


def _patient(study_id: str, _: Any) -> str:
    match = re.fullmatch(r"(patient\d+)_study\d+", study_id)
    if match is None:
        raise BadSample(
            f"the study id {study_id!r} is not of the form patient<n>_study<m>",
            where=study_id,
            mend="use the file as published",
        )
    return match[1]


def _original(folder: Path) -> Iterator[Study | BadSample]:
    for sample in samples(folder):
        if isinstance(sample, BadSample):
            yield sample
        elif sample.split == "validation":
            patient, study = sample.study_id.split("/")[-2:]
            try:
                yield from_recipe(sample, study_id=f"{patient}_{study}", origin=ORIGIN)
            except BadSample as bad:
                yield bad


def read(folder: Path) -> Iterator[Sample | BadSample]:
    """The report question of each study."""
    return report_questions(studies(folder))


def example(folder: Path) -> None:
    """Thirty made-up studies: two in three without findings, lines broken inside sentences, exact ages."""

    def record(number: int) -> tuple[str, dict[str, Any]]:
        name = f"patient{90000 + number}"
        findings, impression = report_example.report(number)
        views = ["Frontal", "Lateral"] if number % 4 == 0 else ["Frontal"]
        paths = [f"valid/{name}/study1/view{place}_{view.lower()}.png" for place, view in enumerate(views, start=1)]
        missing = number % 3 != 0
        broken = (findings if missing else impression).replace(" No ", "\nNo\n").upper()
        said = report_example.indication(number) if number % 2 else "nan"
        age, sex = 30.0 + number, ("Male", "Female", "Unknown")[number % 3]
        return f"{name}_study1", {
            "image_path": paths,
            "report": f"Findings: {'None.' if missing else findings} Impression: {broken}",
            "context": f"Age:{age}.Gender:{sex[0]}.Indication:{said}Comparison: None.",
            "section_clinical_history": said if number % 2 else float("nan"),
            "section_findings": float("nan") if missing else findings,
            "section_impression": f"\n1. {broken}",
            "frontal_lateral": views,
            "ap_pa": ["AP", float("nan")][: len(views)],
            "age": age,
            "sex": sex,
            "race": "White",
            "ethnicity": "Unknown",
            "key_image_path": paths[0],
        }

    report_example.write(folder / FILE, folder / "PNG", record)


_BOARD = "ReXrank repository, results/result_chexpert_plus-valid.csv (first board, 2024)"
_HOW = (
    "differs: BLEU-2 is the mean of sentences split at spaces, on texts with their section labels and literal None for "
    "the 138 missing findings, which lowers it for every model that writes findings; the same 200 studies"
)

TASK = Task(
    name="chexpert-plus",
    version=1,
    title="CheXpert Plus: reports of 200 chest X-ray studies",
    about=(
        "Findings and impression from all views of a study with age, sex and history: the 200 studies of the "
        "validation split of CheXpert, each of another patient."
    ),
    folder="chexpert_plus",
    read=read,
    n=200,
    n_source="counted in ReXRank_CheXpertPlus.json",
    example=example,
    licence=RECIPE.licence,
    url=f"{REPOSITORY}/tree/main/data/chexpert_plus",
    citation=f"{RECIPE.citation}; Zhang et al., arXiv:2411.15122 (ReXrank)",
    access="gated",
    ids_sha256="c8ca02981d196c50e6376d68dac268be653aea89a536219f0c0369edef66c9d8",
    cluster="patient",
    published=tuple(
        Published(metric="bleu_2", value=value, model=model, source=_BOARD, how=_HOW)
        for model, value in (
            ("MedVersa", 0.090), ("RGRG", 0.103), ("CheXpertPlus-findings", 0.088), ("CheXagent", 0.077),
            ("GPT-4V", 0.055),
        )
    ),
    faults=(
        "139 of 200 references have no findings (138 NaN, one a lone /): they are asked all the same, as ReXrank does, "
        "with the topic impression, and nothing is scored as None.",
        "Sections are in capitals, and their lines are broken inside sentences: lines are joined, because a labeller "
        "that reads line by line takes 'no evidence / of edema' for edema.",
        "Two patients are of unknown sex; 82 of 200 have no history.",
        "It is the validation split: CheXpert Plus has no public test split.",
        "From the original table the same studies are cut by our own sections; their ids begin with original/, which "
        "is not the published split.",
    ),
)  # fmt: skip
