"""IU X-Ray: the 590 studies of the test split of R2Gen, as ReXrank publishes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipes.open_i import RECIPE
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.tables import read_json
from medvlm.eval.task import Published, Task, ids_sha256
from medvlm.eval.tasks import report_example
from medvlm.eval.tasks.report_study import Origin, Study, from_recipe, report_questions
from medvlm.eval.tasks.rexrank import REPOSITORY, read_object, read_studies

FILE, VALIDATION, SPLITS = "ReXRank_IUXray_test.json", "ReXRank_IUXray_valid.json", "annotation.json"
IMAGES = "images"
RECORDS = (Path("test.json"), Path("IU_XRAY") / "test.json")
"""Where MedEvalKit (datas/IU_XRAY) has the records that it calls test."""

VALIDATION_NUMBERS = "61c4f263e083c8e88517212c36f0ca041b7f96f80a17bba625d6ac0f7b8a5d71"
"""SHA-256 of the sorted report numbers of the validation split (296), one a line."""

ORIGIN = Origin(
    source="iu-xray",
    licence=RECIPE.licence,
    modality="CR",
    mend="unpack the images of R2Gen (iu_xray.zip) as images/CXR<n>_IM-<m>/0.png beside the ReXrank file",
)


def studies(folder: Path) -> Iterator[Study | BadSample]:
    """The studies of the split: of the ReXrank file, else of the original XML reports that a split file names.

    Raises:
        BadSample: neither is there, or only the validation split.
    """
    file = folder / FILE
    original = RECIPE.matches(folder)
    if file.is_file() and ((folder / IMAGES).is_dir() or not original):
        yield from read_studies(
            file, origin=ORIGIN, roots=[folder / IMAGES], patient=lambda study, _: _number(study), split="test"
        )
    elif original:
        yield from _original(folder, _test_ids(folder))
    else:
        raise _refusal(folder)


def _number(study_id: str) -> str:
    """The report: the collection names no patients, so that each report counts as one."""
    match = re.match(r"CXR(\d+)(?:_|$)", study_id)
    if match is None:
        raise BadSample(
            f"the study id {study_id!r} is none of IU X-Ray", where=study_id, mend="use the file as published"
        )
    return f"CXR{match[1]}"


def _test_ids(folder: Path) -> dict[str, str]:
    """Report ("CXR3030") -> study id ("CXR3030_IM-1405") of the test split.

    Raises:
        BadSample: no file says which reports are in the split.
    """
    if (folder / FILE).is_file():
        return {_number(study_id): study_id for study_id in read_object(folder / FILE)}
    if not (folder / SPLITS).is_file():
        raise BadSample(
            "nothing says which reports are in the test split: the original files have none",
            where=str(folder),
            mend=f"put {FILE} of {REPOSITORY} or annotation.json of R2Gen beside the reports",
        )
    annotation = read_json(folder / SPLITS)
    rows = annotation.get("test") if isinstance(annotation, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and isinstance(row.get("id"), str) for row in rows):
        raise BadSample(
            "no list 'test' of records with an 'id'", where=str(folder / SPLITS), mend="use annotation.json of R2Gen"
        )
    return {_number(row["id"]): row["id"] for row in rows}


def _original(folder: Path, wanted: dict[str, str]) -> Iterator[Study | BadSample]:
    found: set[str] = set()
    for sample in RECIPE.build(folder):
        if isinstance(sample, BadSample):
            if Path(sample.where).stem in {report.removeprefix("CXR") for report in wanted}:
                yield sample
            continue
        report = sample.study_id.rpartition("/")[2]
        if report not in wanted:
            continue
        found.add(report)
        try:
            yield from_recipe(sample, study_id=wanted[report], origin=ORIGIN)
        except BadSample as bad:
            yield bad


def _refusal(folder: Path) -> BadSample:
    if (folder / VALIDATION).is_file():
        return BadSample(
            "only the validation split is here", where=str(folder / VALIDATION), mend=f"use {FILE} of {REPOSITORY}"
        )
    for place in RECORDS:
        if (folder / place).is_file():
            return _records(folder / place)
    return BadSample(
        f"neither {FILE} nor the reports of Open-i are here", where=str(folder), mend=f"get {FILE} from {REPOSITORY}"
    )


def _records(path: Path) -> BadSample:
    """Why a list of records named test is not asked."""
    rows: Any = read_json(path)
    ids = [str(row.get("id", "")) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    numbers = [match[1] for one in ids if (match := re.search(r"(?:open_i_|CXR)(\d+)", one))]
    mend = f"use {FILE} of {REPOSITORY}, which holds the 590 studies of the test split"
    if ids_sha256(numbers) == VALIDATION_NUMBERS:
        return BadSample(
            "these 296 records, which circulate as 'test' (MedEvalKit, datas/IU_XRAY/test.json), are the VALIDATION "
            "split of R2Gen and ReXrank: 296 of 296 reports are in it and none is in the test split",
            where=str(path),
            mend=mend,
        )
    return BadSample(
        f"a list of {len(ids)} records that does not say which split it is; the one known in this layout is the "
        "validation split",
        where=str(path),
        mend=mend,
    )


def read(folder: Path) -> Iterator[Sample | BadSample]:
    """The report question of each study."""
    return report_questions(studies(folder))


def example(folder: Path) -> None:
    """Thirty made-up studies: both views, a study of unknown views, a context without indication."""

    def record(number: int) -> tuple[str, dict[str, Any]]:
        study = f"CXR{9000 + number}_IM-{5000 + number}"
        findings, impression = report_example.report(number)
        views = ["Frontal", "Lateral"] if number % 6 else ["Frontal", "Lateral", "Frontal"]
        said = f"Indication: {report_example.indication(number)} " if number % 7 else " "
        return study, {
            "key_image_path": f"{study}/0.png",
            "image_path": [f"{study}/0.png", f"{study}/1.png"],
            "report": f"Findings: {findings} Impression: {impression}",
            "section_findings": findings,
            "section_impression": impression,
            "split": "test",
            "frontal_lateral": views[::-1] if number % 11 == 3 else views,
            "context": f"{said}Comparison: {('None.', 'Film of the year before.')[number % 2]}",
        }

    report_example.write(folder / FILE, folder / IMAGES, record)


_BOARD = "ReXrank repository, results/result_iu_xray.csv (first board, 2024)"
_HOW = (
    "differs: BLEU-2 is the mean of sentences split at spaces, on texts with their section labels and literal None; "
    "model-specific prompts; the same 590 studies"
)

TASK = Task(
    name="iu-xray",
    version=1,
    title="IU X-Ray: reports of 590 chest X-ray studies",
    about=(
        "Findings and impression from both views and the indication. The studies are the test split of R2Gen, which is "
        "that of ReXrank: 590 of 590 ids and picture paths agree."
    ),
    folder="iu_xray",
    read=read,
    n=590,
    n_source="counted in ReXRank_IUXray_test.json and in annotation.json of R2Gen, whose ids agree",
    example=example,
    licence=RECIPE.licence,
    url=f"{REPOSITORY}/tree/main/data/iu_xray",
    citation=f"{RECIPE.citation}; Chen et al., EMNLP 2020 (split); Zhang et al., arXiv:2411.15122 (ReXrank)",
    ids_sha256="5a1ffae1cceeaad4f2aa1d3e8ce835fe7c995cd432728ef81a483ab44e83b42c",
    cluster="study",
    published=tuple(
        Published(metric="bleu_2", value=value, model=model, source=_BOARD, how=_HOW)
        for model, value in (
            ("MedVersa", 0.195), ("RGRG", 0.240), ("RadFM", 0.196), ("CheXagent", 0.102), ("GPT-4V", 0.079),
        )
    ),
    faults=(
        "The 296 records that MedEvalKit calls test are the validation split; they are refused.",
        "frontal_lateral lists more or fewer views than there are pictures in 46 of 590 studies; the pictures are then "
        "shown without the names of their views.",
        "One key_image_path of the file is a lateral view by its own list.",
        "XXXX marks what was removed to protect patients; it counts in n-grams.",
        "A comparison or indication of 'None.' or 'XXXX' is not shown.",
        "The collection names no patients: each report counts as one, and intervals are over studies.",
        "From the original XML reports (with annotation.json or the ReXrank file for the split) the same studies are "
        "asked with all their pictures and without the comparison; their ids begin with original/, which is not the "
        "published split.",
    ),
)  # fmt: skip
