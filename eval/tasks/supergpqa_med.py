"""SuperGPQA, medicine: 2,755 questions with four to ten options, written and checked by experts.

M-A-P Team, arXiv:2502.14739 (2025). Read from SuperGPQA-all.jsonl (the repository and m-a-p/SuperGPQA hold the same
file) or a Parquet export of it: uuid, question, options, answer, answer_letter, discipline, field, difficulty.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.hub_tables import parquet_of, read_split
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.tables import Row, read_json_lines
from medvlm.eval.task import Published, Task
from medvlm.eval.tasks.examination import (
    LETTERS,
    Asked,
    Examination,
    agree,
    all_of,
    first_file,
    missing,
    option_texts,
    place_of_letter,
    sample_of,
)
from medvlm.eval.tasks.made_up import COUNT, options_of, vignette, write_json_lines
from medvlm.eval.tasks.published import LETTER, TABLES

EXAM = Examination(source="supergpqa-med", licence="ODC-BY 1.0 (card of the dataset)")
URL = "https://github.com/SuperGPQA/SuperGPQA"
DISCIPLINE = "Medicine"


def _make(row: Row) -> Sample | None:
    if row.text("discipline") != DISCIPLINE:
        return None
    options = option_texts(row, "options")
    asked = Asked(
        question=row.text("question"),
        options=options,
        right=agree(row, options, place_of_letter(row, "answer_letter"), row.text("answer")),
        name=row.text("uuid"),
        topic=row.text("field").lower(),
        metadata={
            "subject": row.text("field"), "subfield": row.optional("subfield"), "difficulty": row.text("difficulty"),
        },
    )  # fmt: skip
    return sample_of(EXAM, asked, where=row.where)


def read(folder: Path) -> Iterator[Sample | BadSample]:
    """The questions of medicine in ``folder``; those of other disciplines are left out."""
    path = first_file(folder, "SuperGPQA-all.jsonl", "data/SuperGPQA-all.jsonl", "*.jsonl")
    if path is not None:
        yield from all_of(read_json_lines(path), _make)
    elif parquet_of(folder, "train"):
        yield from all_of(read_split(folder, "train", required=("uuid", "discipline", "options")), _make)
    else:
        yield missing(folder, "SuperGPQA-all.jsonl", URL)


def example(folder: Path) -> None:
    rows = []
    for number in range(COUNT + 4):
        count = (10, 9, 10, 5)[number % 4]
        options, right = options_of(number, count)
        rows.append(
            {
                "uuid": f"made-up-{number:04d}",
                "question": vignette(number),
                "options": options,
                "answer": options[right],
                "answer_letter": LETTERS[right],
                "discipline": "Law" if number >= COUNT else DISCIPLINE,
                "field": ("Clinical Medicine", "Basic Medicine")[number % 2],
                "subfield": ("Surgery", "Radiology")[number % 2],
                "difficulty": ("easy", "middle", "hard")[number % 3],
                "is_calculation": False,
            }
        )
    write_json_lines(folder / "SuperGPQA-all.jsonl", rows)


TASKS = (
    Task(
        name="supergpqa-med",
        version=1,
        title="SuperGPQA, medicine (text, up to ten options)",
        about="Graduate-level questions of medicine with mostly ten options, by field and difficulty.",
        folder="supergpqa",
        read=read,
        n=2755,
        n_source="rows with discipline Medicine, as MedEvalKit and the paper count them; not counted here",
        example=example,
        licence=EXAM.licence,
        url=URL,
        citation="M-A-P Team, SuperGPQA, arXiv:2502.14739 (2025)",
        hub="m-a-p/SuperGPQA",
        published=(
            Published(metric="choice_accuracy", value=0.425, model="InternVL3-38B", source=TABLES, how=LETTER),
            Published(metric="choice_accuracy", value=0.418, model="Hulu-Med-32B", source=TABLES, how=LETTER),
            Published(metric="choice_accuracy", value=0.647, model="GPT-5", source=TABLES, how=LETTER),
        ),
        faults=(
            "The hub calls its only split train.",
            "MedEvalKit fills its table by field with counts by difficulty, and the other way round (commit 9b12e3b).",
            "Options number four to ten: a reader that stops at E makes many right answers impossible.",
        ),
    ),
)  # fmt: skip
