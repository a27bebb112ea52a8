"""GMAI-MMBench, validation: 4,550 questions about pictures of 38 modalities.

Chen et al., NeurIPS (2024). Read from GMAI_mm_bench_VAL.tsv (OpenGVLab/GMAI-MMBench, myuniverse/GMAI-MMBench): index,
image (base64), question, A to E, answer, category, modality, department, "clinical VQA task". As in VLMEvalKit, a
short ``image`` is the index of the row that holds the picture.
"""

from __future__ import annotations

import base64
import binascii
import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from medvlm.data_recipes.asking import visual_at
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.hub_tables import keep_picture
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.tables import Row, read_lines, require_columns
from medvlm.eval.task import Published, Task
from medvlm.eval.tasks.examination import (
    Asked,
    Examination,
    all_of,
    first_file,
    missing,
    option_columns,
    place_of_letter,
    sample_of,
)
from medvlm.eval.tasks.made_up import CASES, COUNT, options_of, png, vignette

EXAM = Examination(source="gmai-mmbench", licence="CC BY-NC-SA 4.0 (card of the dataset)", split="validation")
URL = "https://huggingface.co/datasets/OpenGVLab/GMAI-MMBench"
REQUIRED = ("index", "image", "question", "A", "B", "answer")
_LONGEST_INDEX = 64
"""Characters; VLMEvalKit takes a longer ``image`` for a picture."""
_WIDEST = 1 << 28
"""Characters of one cell: a base64 picture is longer than the 131,072 that csv reads by default."""


def _rows(path: Path) -> Iterator[Row | BadSample]:
    reader = csv.reader(read_lines(path), delimiter="\t")
    header = _next(reader) or []
    if "answer" not in header and "question" in header:
        raise BadSample(
            "the table has no answers: those of the test split are withheld",
            where=str(path),
            mend="use GMAI_mm_bench_VAL.tsv",
        )
    require_columns(header, REQUIRED, path)
    while (cells := _next(reader)) is not None:
        where = f"{path}:{reader.line_num}"
        if len(cells) != len(header):
            yield BadSample(f"{len(cells)} cells for {len(header)} columns", where=where, mend="download it again")
            continue
        yield Row(where=where, number=reader.line_num, values=dict(zip(header, cells, strict=True)))


def _next(reader: Iterator[list[str]]) -> list[str] | None:
    """The next row, read with room for pictures; the limit is that of the whole process, so it is put back."""
    before = csv.field_size_limit(_WIDEST)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def _picture(text: str, folder: Path, where: str) -> str:
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise BadSample("'image' is no base64", where=where, mend="download the table again") from error
    return keep_picture(data, folder, where)


def _pictures(path: Path) -> dict[str, str]:
    """Index -> file; a first pass, since a row may name a picture that stands further down."""
    found: dict[str, str] = {}
    for row in _rows(path):
        if isinstance(row, Row) and len(row.values["image"]) > _LONGEST_INDEX:
            found[row.text("index")] = _picture(row.values["image"], path.parent, row.where)
    return found


def _make(row: Row, *, pictures: dict[str, str]) -> Sample:
    index, image = row.text("index"), row.text("image")
    source = index if len(image) > _LONGEST_INDEX else image
    if source not in pictures:
        raise BadSample(f"no row {source} holds a picture", where=row.where, mend="use the whole table")
    low = {key.lower().replace("_", " "): value for key, value in row.values.items()}
    about = Row(where=row.where, number=row.number, values=low)
    facts = {
        "modality": about.optional("modality"),
        "subject": about.optional("department"),
        "clinical_task": about.optional("clinical vqa task"),
        "granularity": about.optional("perceptual granularity"),
        "dataset": about.optional("dataset"),
    }
    asked = Asked(
        question=row.text("question"),
        options=option_columns(row, "ABCDE", frozenset({"none", "nan"})),
        right=place_of_letter(row, "answer"),
        name=index,
        case=Path(pictures[source]).stem[:16],
        topic=(facts["clinical_task"] or "other").lower(),
        visuals=(visual_at(Path(pictures[source]), kind="image", where=row.where, mend="read the table again"),),
        metadata=facts,
    )
    return sample_of(EXAM, asked, where=row.where)


def read(folder: Path) -> Iterator[Sample | BadSample]:
    """The validation questions in ``folder``."""
    path = first_file(folder, "GMAI_mm_bench_VAL.tsv", "GMAI-MMBench_VAL.tsv", "*VAL*.tsv", "*.tsv")
    if path is None:
        yield missing(folder, "GMAI_mm_bench_VAL.tsv", URL)
        return
    yield from all_of(_rows(path), partial(_make, pictures=_pictures(path)))


def example(folder: Path) -> None:
    names = (
        "index", "image", "question", "A", "B", "C", "D", "E", "answer", "category", "modality", "department",
        "clinical VQA task",
    )  # fmt: skip
    with (folder / "GMAI_mm_bench_VAL.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(names)
        for number in range(COUNT):
            options, right = options_of(number, 4 + number % 2)
            # The last three rows show pictures of the first three, by their index.
            image = base64.b64encode(png(number)).decode() if number < COUNT - 3 else str(number - COUNT + 3)
            writer.writerow(
                [
                    number, image, vignette(number), *options, *[""] * (5 - len(options)), "ABCDE"[right],
                    options[right], ("CT", "MRI", "X-ray")[number % 3], CASES[number % len(CASES)][3],
                    ("Disease Diagnosis", "Organ Recognition - Head and Neck")[number % 2],
                ]
            )  # fmt: skip


TASKS = (
    Task(
        name="gmai-mmbench-val",
        version=1,
        title="GMAI-MMBench, validation",
        about="Made from the labels of 284 datasets in 38 modalities: four or five options, by clinical task.",
        folder="gmai-mmbench",
        read=read,
        n=4550,
        n_source="Chen et al. 2024; not counted here",
        example=example,
        licence=EXAM.licence,
        url=URL,
        citation="Chen et al., NeurIPS (2024), arXiv:2408.03361",
        hub="OpenGVLab/GMAI-MMBench",
        published=(
            Published(
                metric="choice_accuracy", value=0.5396, model="GPT-4o", source="README of uni-medical/GMAI-MMBench",
                how="ANOTHER SPLIT: the test questions, with withheld answers; VLMEvalKit's rules and a judge",
            ),
        ),
        faults=(
            "The answers of the 21,281 test questions are withheld: answers are sent to the authors by mail.",
            "The code of the repository is Apache-2.0, the data are not: pictures are for research only.",
            "Pictures are re-encoded and partly slices of volumes; no file names patients: a picture is a case.",
            "Who finds the answer by the text of ``category`` instead of the letter loses one question (4,549).",
        ),
    ),
)  # fmt: skip
