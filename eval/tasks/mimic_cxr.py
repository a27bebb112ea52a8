"""MIMIC-CXR: the 2,347 studies of the test split that have findings, as ReXrank publishes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipes.mimic_cxr import RECIPE, samples
from medvlm.data_recipes.sample import Sample
from medvlm.eval.task import Published, Task
from medvlm.eval.tasks import report_example
from medvlm.eval.tasks.report_study import Origin, Study, from_recipe, report_questions
from medvlm.eval.tasks.rexrank import REPOSITORY, read_studies

FILE, IMAGES = "ReXRank_MIMICCXR_test.json", "files"

ORIGIN = Origin(
    source="mimic-cxr",
    licence=RECIPE.licence,
    modality="DX",
    mend=f"download the images of the study from {RECIPE.url} into files/",
)


def studies(folder: Path) -> Iterator[Study | BadSample]:
    """The studies of the split: of the ReXrank file over the images of MIMIC-CXR-JPG, else of the original tables.

    Raises:
        BadSample: neither is there.
    """
    if (folder / FILE).is_file():
        yield from read_studies(
            folder / FILE, origin=ORIGIN, roots=[folder / IMAGES], patient=_patient, split="test"
        )  # fmt: skip
    elif RECIPE.matches(folder):
        yield from _original(folder)
    else:
        raise BadSample(
            f"neither {FILE} nor the tables of MIMIC-CXR-JPG are here",
            where=str(folder),
            mend=f"get {FILE} from {REPOSITORY} and the images from {RECIPE.url}",
        )


def _patient(study_id: str, record: Any) -> str:
    subject = record.get("subject_id")
    if not isinstance(subject, int | str) or isinstance(subject, bool):
        raise BadSample("subject_id is missing", where=study_id, mend="use the file as published", sample_id=study_id)
    return f"p{subject}"


def _original(folder: Path) -> Iterator[Study | BadSample]:
    """Studies of the authors' test split whose report has findings by name; without the prior, as ReXrank asks."""
    for sample in samples(folder):
        if isinstance(sample, BadSample):
            yield sample
        elif sample.split == "test" and "findings" in sample.metadata["sections"]:
            try:
                yield from_recipe(sample, study_id=sample.study_id.rpartition("/s")[2], origin=ORIGIN)
            except BadSample as bad:
                yield bad


def read(folder: Path) -> Iterator[Sample | BadSample]:
    """The report question of each study."""
    return report_questions(studies(folder))


_VIEWS: tuple[list[Any], ...] = (
    ["antero-posterior"],
    ["postero-anterior", "lateral"],
    ["lateral", "postero-anterior", "left lateral"],
    [float("nan")],
)


def example(folder: Path) -> None:
    """Thirty made-up studies of twelve patients: one to three pictures, an unnamed view, a third without impression."""

    def record(number: int) -> tuple[str, dict[str, Any]]:
        patient, study = 19000000 + number % 12, 59000000 + number
        findings, impression = report_example.report(number)
        views = _VIEWS[number % len(_VIEWS)]
        paths = [
            f"/p{patient // 1000000}/p{patient}/s{study}/{report_example.hexadecimal(10 * number + place)}.jpg"
            for place in range(len(views))
        ]
        known = f"Age:{20 + 10 * (number % 6)}-{30 + 10 * (number % 6)}.Gender:{'MF'[number % 2]}."
        both = number % 3 != 2
        return str(study), {
            "image_path": paths,
            "section_findings": findings,
            "section_impression": impression if both else float("nan"),
            "frontal_lateral": views,
            "split": "test",
            "subject_id": patient,
            "context": f"{known if number % 5 else ''}Indication: {report_example.indication(number)}Comparison: None.",
            "key_image_path": paths[0],
            "report": f"Findings: {findings} Impression: {impression if both else 'None.'}",
        }

    report_example.write(folder / FILE, folder / IMAGES, record)


_BOARD = "ReXrank repository, results/result_mimic-cxr.csv (first board, 2024)"
_HOW = (
    "differs: BLEU-2 is the mean of sentences split at spaces, on texts with their section labels and literal None for "
    "the 723 missing impressions; model-specific prompts; models with * were trained on MIMIC-CXR; the same "
    "2,347 studies"
)

TASK = Task(
    name="mimic-cxr",
    version=1,
    title="MIMIC-CXR: reports of 2,347 chest X-ray studies",
    about=(
        "Findings and impression from all views of a study, with age, sex, indication and comparison: the studies of "
        "ReXrank, which are those of the official test split with findings."
    ),
    folder="mimic-cxr",
    read=read,
    n=2347,
    n_source="counted in ReXRank_MIMICCXR_test.json, 289 patients",
    example=example,
    licence=RECIPE.licence,
    url=f"{REPOSITORY}/tree/main/data/mimic-cxr",
    citation=f"{RECIPE.citation}; Zhang et al., arXiv:2411.15122 (ReXrank)",
    access="credentialed",
    ids_sha256="a9fcd80fe4d93069224eccb9ce1c3add2ab1286541d86fcd329f6cd7a166b1c5",
    cluster="patient",
    published=tuple(
        Published(metric="bleu_2", value=value, model=model, source=_BOARD, how=_HOW)
        for model, value in (
            ("MedVersa*", 0.193), ("CheXpertPlus-mimic*", 0.128), ("RGRG*", 0.125), ("CheXagent*", 0.094),
            ("GPT-4V", 0.065),
        )
    ),
    faults=(
        "723 of 2,347 references have no impression (NaN): the section is neither asked as text nor scored as None; "
        "such questions have the topic findings.",
        "The 2,347 studies are of 289 patients, up to dozens of one: intervals are over patients.",
        "207 contexts say None for age, sex, indication and comparison; nothing of that is shown.",
        "One age was made a date by a spreadsheet (20-Oct for 10-20).",
        "202 of 3,858 pictures have no name of a view and 13 are named Erect: shown as View.",
        "Reports compare with earlier studies that are not shown.",
        "From the original tables the same studies are cut by our own sections and asked without the comparison; their "
        "ids begin with original/, which is not the published split.",
    ),
)  # fmt: skip
