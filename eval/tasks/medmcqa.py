"""MedMCQA: 4,183 validation questions of Indian medical entrance examinations (the test answers are hidden).

Pal et al., CHIL (2022). Read from the authors' dev.json (a JSON object a line) or the Parquet files of
openlifescienceai/medmcqa. Both have id, question, opa..opd, cop, choice_type, exp, subject_name, topic_name, but the
authors number the right option from 1 and the hub from 0; all rows of a file together tell which of the two it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.hub_tables import parquet_of, read_split
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.tables import Row, read_json_lines
from medvlm.eval.task import Published, Task
from medvlm.eval.tasks.examination import Asked, Examination, all_of, first_file, missing, option_columns, sample_of
from medvlm.eval.tasks.made_up import COUNT, options_of, vignette, write_json_lines
from medvlm.eval.tasks.published import LETTER, TABLES

EXAM = Examination(source="medmcqa", licence="MIT (repository of the authors)", split="validation")
URL = "https://github.com/medmcqa/medmcqa"
COLUMNS = ("opa", "opb", "opc", "opd")


def first_number(numbers: set[str], where: str) -> int:
    """0 or 1: what ``cop`` of the first option is, from all numbers of a file.

    Raises:
        BadSample: the numbers fit both ways of counting, or neither.
    """
    if numbers <= {"0", "1", "2", "3"} and "0" in numbers:
        return 0
    if numbers <= {"1", "2", "3", "4"} and "4" in numbers:
        return 1
    raise BadSample(
        f"'cop' holds {sorted(numbers)[:8]}: whether it counts from 0 (hub) or from 1 (authors) cannot be told",
        where=where,
        mend="use the whole file, as published",
    )


def _make(row: Row, *, first: int) -> Sample:
    subject = row.optional("subject_name") or ""
    asked = Asked(
        question=row.text("question"),
        options=option_columns(row, COLUMNS),
        right=int(row.text("cop")) - first,
        name=row.text("id"),
        metadata={
            "subject": subject,
            "chapter": row.optional("topic_name"),
            "choice_type": row.optional("choice_type"),
        },
    )
    return sample_of(EXAM, asked, where=row.where)


def read(folder: Path) -> Iterator[Sample | BadSample]:
    """The validation questions in ``folder``."""
    path = first_file(folder, "dev.json", "data/dev.json", "medmcqa_data/dev.json", "validation.jsonl", "dev.jsonl")
    if path is not None:
        rows: list[Row | BadSample] = list(read_json_lines(path))
    elif parquet_of(folder, "validation"):
        rows = list(read_split(folder, "validation", required=("id", "question", *COLUMNS, "cop")))
    else:
        yield missing(folder, "dev.json and no data/validation-*.parquet", URL)
        return
    numbers = {row.written("cop") for row in rows if isinstance(row, Row)}
    try:
        first = first_number(numbers, str(path or folder))
    except BadSample as bad:
        yield bad
        return
    yield from all_of(rows, partial(_make, first=first))


def example(folder: Path) -> None:
    rows = []
    for number in range(COUNT):
        options, right = options_of(number, 4)
        rows.append(
            {
                "id": f"made-up-{number:04d}",
                "question": vignette(number),
                "exp": None,
                "cop": right + 1,
                **dict(zip(COLUMNS, options, strict=True)),
                "subject_name": ("Medicine", "Surgery", "Radiology")[number % 3],
                "topic_name": None,
                "choice_type": ("single", "multi")[number % 4 == 3],
            }
        )
    write_json_lines(folder / "dev.json", rows)


TASKS = (
    Task(
        name="medmcqa",
        version=1,
        title="MedMCQA, validation (text)",
        about="Questions of the AIIMS and NEET PG entrance examinations, 21 subjects, four options.",
        folder="medmcqa",
        read=read,
        n=4183,
        n_source="Pal et al. 2022, table 2; counted in a complete copy of the validation split",
        example=example,
        licence=EXAM.licence,
        url=URL,
        citation="Pal, Umapathi, Sankarasubbu, CHIL (2022), PMLR 174:248-260",
        ids_sha256="d448f1cb562d91fcb6458616cd33c26edc17604caae42e643238b01e1fde1c0b",
        hub="openlifescienceai/medmcqa",
        published=(
            Published(metric="choice_accuracy", value=0.728, model="Hulu-Med-32B", source=TABLES, how=LETTER),
            Published(metric="choice_accuracy", value=0.844, model="GPT-5", source=TABLES, how=LETTER),
        ),
        faults=(
            "The validation split is what everybody reports: the answers of the test questions are not published.",
            "The authors' file numbers the right option from 1 and the copy on the hub from 0. A reader of one that is "
            "given the other is silently off by one.",
            "21 questions list an option twice; either of the two letters counts. 5 have options that are letters in "
            "another order (c, d, bd, ac): an answer C is the third option.",
            "Questions marked choice_type 'multi' have one right option all the same.",
        ),
    ),
)  # fmt: skip
