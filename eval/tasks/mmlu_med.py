"""MMLU, the six medical subjects that Med-PaLM reported: 1,089 test questions.

Hendrycks et al., ICLR (2021); the six subjects after Singhal et al., Nature 620 (2023). Read from the authors' data
(data/test/<subject>_test.csv: question, four options, letter, without a header) or from cais/mmlu on the hub
(<subject>/test-*.parquet: question, subject, choices, answer from 0).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.hub_tables import parquet_of, read_split
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.tables import Row, read_lines
from medvlm.eval.task import Published, Task
from medvlm.eval.tasks.examination import (
    Asked,
    Examination,
    all_of,
    fingerprint_of,
    first_file,
    missing,
    numbered,
    option_columns,
    option_texts,
    place_of_letter,
    sample_of,
)
from medvlm.eval.tasks.made_up import options_of, vignette
from medvlm.eval.tasks.published import LETTER, TABLES

EXAM = Examination(source="mmlu-med", licence="MIT")
URL = "https://github.com/hendrycks/test"
SUBJECTS = {
    "anatomy": 135, "clinical_knowledge": 265, "college_biology": 144, "college_medicine": 173,
    "medical_genetics": 100, "professional_medicine": 272,
}  # fmt: skip
"""Subject -> test questions."""
_CELLS = ("question", "A", "B", "C", "D", "answer")


def _csv(path: Path) -> Iterator[Row | BadSample]:
    reader = csv.reader(read_lines(path))
    for cells in reader:
        where = f"{path}:{reader.line_num}"
        if len(cells) != len(_CELLS):
            yield BadSample(f"{len(cells)} cells, expected six", where=where, mend="use the file as published")
            continue
        yield Row(where=where, number=reader.line_num, values=dict(zip(_CELLS, cells, strict=True)))


def _make(row: Row, *, subject: str) -> Sample:
    if "choices" in row.values:
        options, right = option_texts(row, "choices"), int(row.text("answer"))
        if row.written("subject") not in ("", subject):
            raise BadSample(
                f"a question of {row.text('subject')} stands in {subject}", where=row.where, mend="sort the files"
            )
    else:
        options, right = option_columns(row, "ABCD"), place_of_letter(row, "answer")
    question = row.text("question")
    asked = Asked(
        question=question,
        options=options,
        right=right,
        # 78 questions stand in two subjects: its id says in which one, its case does not.
        name=f"{subject}/{fingerprint_of(question, *options)}",
        topic=subject.replace("_", " "),
        metadata={"subject": subject},
    )
    return sample_of(EXAM, asked, where=row.where)


def _subject(folder: Path, subject: str) -> Iterator[Sample | BadSample]:
    make = partial(_make, subject=subject)
    path = first_file(folder, f"data/test/{subject}_test.csv", f"test/{subject}_test.csv", f"{subject}_test.csv")
    if path is not None:
        yield from all_of(_csv(path), make)
    elif parquet_of(folder / subject, "test"):
        yield from all_of(read_split(folder / subject, "test", required=("question", "choices", "answer")), make)
    else:
        yield missing(folder, f"test file of the subject {subject}", URL)


def read(folder: Path) -> Iterator[Sample | BadSample]:
    """The test questions of the six subjects in ``folder``."""
    for subject in SUBJECTS:
        yield from numbered(_subject(folder, subject))


def example(folder: Path) -> None:
    place = folder / "data" / "test"
    place.mkdir(parents=True)
    for order, subject in enumerate(SUBJECTS):
        with (place / f"{subject}_test.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            for number in range(4 * order, 4 * order + 4):
                options, right = options_of(number, 4)
                writer.writerow([vignette(number), *options, "ABCD"[right]])


TASKS = (
    Task(
        name="mmlu-med",
        version=1,
        title="MMLU, six medical subjects (text)",
        about="Anatomy, clinical knowledge, college biology and medicine, medical genetics, professional medicine.",
        folder="mmlu",
        read=read,
        n=sum(SUBJECTS.values()),
        n_source="135 + 265 + 144 + 173 + 100 + 272, counted in a complete copy; the sum of Singhal et al. 2023",
        example=example,
        licence=EXAM.licence,
        url=URL,
        citation="Hendrycks et al., ICLR (2021); six subjects after Singhal et al., Nature 620:172-180 (2023)",
        ids_sha256="3c89e2844e605784d868915972d26d62a7c265c6222cacfdc18cba52c57094ef",
        hub="cais/mmlu",
        published=(
            Published(
                metric="choice_accuracy", value=0.856, model="Hulu-Med-32B", source=TABLES,
                how=f"NINE subjects (also nutrition, virology, high school biology; about 1,871 questions). {LETTER}",
            ),
            Published(
                metric="choice_accuracy", value=0.925, model="GPT-5", source=TABLES,
                how=f"NINE subjects (also nutrition, virology, high school biology; about 1,871 questions). {LETTER}",
            ),
        ),
        faults=(
            "Different lists of subjects share the name: six here (1,089), nine in MedEvalKit (about 1,871). Tables do "
            "not say which.",
            "78 of the 1,089 questions stand twice with the same options, in college medicine and clinical knowledge. "
            "Both count, as everywhere; the interval draws them together.",
            "MedEvalKit's class for MMLU uses a name that is not defined and cannot run as published (commit 9b12e3b).",
        ),
    ),
)  # fmt: skip
