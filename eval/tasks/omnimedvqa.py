"""OmniMedVQA, the open-access part: multiple-choice questions about pictures of 42 datasets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from medvlm.data_recipes.asking import ask, visual_at
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.hub_tables import place_of
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.tables import Row, read_json_list
from medvlm.eval.task import Task
from medvlm.eval.tasks.drawn_pictures import draw
from medvlm.eval.tasks.published_vqa import HULU, LINGSHU, nearest

NAME, LICENCE = "omnimedvqa", "per source dataset; collected for research, see the authors' page"
TABLES = Path("QA_information") / "Open-access"
LETTERS = "ABCD"


def read(folder: Path) -> Iterator[Sample | BadSample]:
    """Questions of every table of QA_information/Open-access, in the order of their names.

    Raises:
        BadSample: there is no such folder.
    """
    place = place_of(folder, f"{TABLES}/*.json")
    if place is None:
        raise BadSample(
            f"{TABLES}/*.json are not here",
            where=str(folder),
            mend="unpack OmniMedVQA.zip of hub dataset foreverbeliever/OmniMedVQA there",
        )
    for table in sorted((place / TABLES).glob("*.json")):
        for row in read_json_list(table):
            try:
                yield row if isinstance(row, BadSample) else _sample(row, place, table.stem)
            except BadSample as bad:
                yield bad


def keys_of(row: Row, choices: list[str]) -> list[str]:
    """The letters of all choices whose text is the published answer: the same text may stand twice.

    Raises:
        BadSample: no choice is the answer.
    """
    answer = row.text("gt_answer")
    found = [letter for letter, text in zip(LETTERS, choices, strict=False) if text == answer]
    found = found or [letter for letter, text in zip(LETTERS, choices, strict=False) if text.lower() == answer.lower()]
    if not found:
        raise BadSample("gt_answer is none of the options", where=row.where, mend="use the table as published")
    return found


def _sample(row: Row, place: Path, table: str) -> Sample:
    written = [row.written(f"option_{letter}") for letter in LETTERS]
    choices = [text for text in written if text]
    if written[: len(choices)] != choices or len(choices) < 2:
        reason = f"{len(choices)} options, expected two to four from option_A on"
        raise BadSample(reason, where=row.where, mend="use the table as published")
    name = row.text("image_path")
    mend = "unpack the pictures of OmniMedVQA.zip beside QA_information"
    keys = keys_of(row, choices)
    return ask(
        sample_id=f"{NAME}/{table}/{row.number}",
        patient_id=f"{NAME}/{name}",
        source=NAME,
        licence=LICENCE,
        split="test",
        visuals=[visual_at(place / name, kind="image", where=row.where, mend=mend)],
        prompt=row.text("question"),
        answers=keys,
        kind="choice",
        choices=choices,
        topic=(row.optional("question_type") or "other").lower(),
        where=row.where,
        metadata={
            # One row of "Chest CT Scan.json" writes "modality" for "modality_type".
            "modality": row.optional("modality_type") or row.optional("modality") or "unknown",
            "dataset": row.optional("dataset") or table,
            "question_id": row.optional("question_id") or "",
            "language": "en",
            "same_text_twice": len(keys) > 1,
        },
    )


QUESTIONS = (
    ("What imaging technique was used?", "Modality Recognition", ("MR", "CT", "X-ray", "Ultrasound"), "CT"),
    ("Is there a fracture?", "Disease Diagnosis", ("No", "Yes"), "No"),
    ("Which organ is shown?", "Anatomy Identification", ("Lung", "Liver", "Lung", "Spleen"), "Lung"),
    ("How severe is the lesion?", "Lesion Grading", ("mild", "moderate", "severe"), "severe."),
)
"""Of the example: question, question_type, options, answer; one answer stands twice, one is written otherwise."""


def example(folder: Path) -> None:
    """32 questions of two source datasets about eight pictures, in the published layout."""
    tables: dict[str, list[dict[str, str]]] = {"Chest CT Scan": [], "Fracture": []}
    for picture in range(8):
        source = ("Chest CT Scan", "Fracture")[picture % 2]
        name = f"Images/{source}/{picture}.png"
        draw(folder / name)
        for number, (question, kind, options, answer) in enumerate(QUESTIONS):
            row = {
                "dataset": source, "question_id": f"{source}_{picture}_{number}", "question_type": kind,
                "question": question, "gt_answer": answer.rstrip("."), "image_path": name,
                **{f"option_{letter}": text for letter, text in zip(LETTERS, options, strict=False)},
            }  # fmt: skip
            modality = ("CT(Computed Tomography)", "X-Ray")[picture % 2]
            row["modality" if picture == number == 0 else "modality_type"] = modality
            if kind == "Disease Diagnosis" and picture % 4 == 1:
                row["gt_answer"] = "yes"
            tables[source].append(row)
    (folder / TABLES).mkdir(parents=True, exist_ok=True)
    for source, rows in tables.items():
        (folder / TABLES / f"{source}.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


TASK = Task(
    name=NAME,
    version=1,
    title="OmniMedVQA, open-access part",
    about=(
        "Multiple-choice questions with two to four options, made from the labels of public datasets in 12 modalities: "
        "modality, anatomy, diagnosis, grade and other attributes."
    ),
    folder=NAME,
    read=read,
    n=88_996,
    n_source="QA items of QA_information/Open-access, as github.com/GiovanniCornejo/MediVision-OmniMedVQA counts them: "
    "42 datasets, 82,059 pictures; 127,995 items with the restricted part",
    example=example,
    licence=LICENCE,
    url="https://huggingface.co/datasets/foreverbeliever/OmniMedVQA",
    citation="Hu et al., OmniMedVQA, CVPR (2024), arXiv 2402.09181",
    hub="foreverbeliever/OmniMedVQA",
    published=(
        nearest("GPT-4.1", 75.5, LINGSHU, "open-access part"),
        nearest("GPT-5", 76.4, HULU, "open-access part"),
        nearest("Hulu-Med-14B", 85.1, HULU, "open-access part"),
    ),
    faults=(
        "The key is a text, and its letter must be found. Where two options have the same text, MedEvalKit keeps the "
        "last letter and marks the other wrong; here either is right.",
        "VLMEvalKit's loader puts together parts 1 to 14 of 30: a silent subset.",
        '"Chest CT Scan.json" has a row with the key modality instead of modality_type; it is read alike.',
        "The restricted part (38,999 questions) needs agreements of its own and is not asked.",
        "RadImageNet gives most of the questions; answers are skewed (No, It's normal), so look at "
        "choice_majority_accuracy.",
        "The paper also scores the likelihood of the options (prefix score); that is another number.",
        "Patients are not told: a picture counts as a patient. Body parts are not told.",
    ),
)
