"""MedXpertQA: 2,000 questions with one to six pictures (MM) and 2,450 in words with ten options (Text).

Zuo et al., ICML (2025). Read from the authors' repository (eval/data/medxpertqa/input/medxpertqa_{mm,text}_input.jsonl:
options [{letter, content}], label ["A"], images [{image_path}]) or from TsinghuaC3I/MedXpertQA on the hub ({MM,Text}/
test.jsonl: options {A: ...}, label "A", images ["MM-0-a.jpeg"]), with the pictures of images.zip unpacked into images/.
The question repeats its options behind "Answer Choices:"; that is taken off, since they are listed once already.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from medvlm.data_recipes.asking import visual_at
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.hub_tables import parquet_of, read_split
from medvlm.data_recipes.sample import Sample, VisualRef
from medvlm.data_recipes.tables import Row, read_json_lines
from medvlm.eval.task import Published, Task
from medvlm.eval.tasks.examination import (
    LETTERS,
    Asked,
    Examination,
    all_of,
    first_file,
    missing,
    option_texts,
    place_of_letter,
    sample_of,
)
from medvlm.eval.tasks.made_up import CASES, COUNT, options_of, png, vignette, write_json_lines
from medvlm.eval.tasks.published import LETTER, TABLES

LICENCE = "MIT"
URL = "https://github.com/TsinghuaC3I/MedXpertQA"
_CHOICES = "\nAnswer Choices:"
_MEND = "unpack images.zip of the dataset into images/"


def bare_question(question: str, options: tuple[str, ...], where: str) -> str:
    """The question without the options that it repeats.

    Raises:
        BadSample: it repeats other options than the row lists.
    """
    stem, mark, repeated = question.rpartition(_CHOICES)
    if not mark:
        return question
    expected = " ".join(f"({letter}) {text}" for letter, text in zip(LETTERS, options, strict=False))
    if _bare(repeated) != _bare(expected):
        raise BadSample("the question repeats other options than it has", where=where, mend="correct the row")
    return stem


def _bare(text: str) -> str:
    return re.sub(r"\s+", "", text)


def _pictures(row: Row, folder: Path) -> tuple[VisualRef, ...]:
    names = row.values.get("images")
    if not isinstance(names, list) or not names:
        raise BadSample("'images' must be a list of file names", where=row.where, mend="use the file as published")
    found = []
    for item in names:
        name = item.get("image_path") if isinstance(item, dict) else item
        if not isinstance(name, str) or Path(name).name != name:
            raise BadSample(f"{name!r} is no file name", where=row.where, mend="use the file as published")
        path = first_file(folder, f"images/{name}", name, f"*/images/{name}") or folder / "images" / name
        found.append(visual_at(path, kind="image", where=row.where, mend=_MEND))
    return tuple(found)


def _make(row: Row, *, exam: Examination, count: int, folder: Path) -> Sample:
    name = row.text("id")
    options = option_texts(row, "options")
    if len(options) != count:
        raise BadSample(f"{len(options)} options, expected {count}", where=row.where, mend="use the file as published")
    kind = row.text("question_type")
    asked = Asked(
        question=bare_question(str(row.values["question"]), options, row.where),
        options=options,
        right=place_of_letter(row, "label"),
        name=name,
        case=name,
        topic=kind.lower(),
        visuals=_pictures(row, folder) if exam.source.endswith("mm") else (),
        metadata={
            "question_type": kind, "medical_task": row.optional("medical_task"),
            "body_part": row.optional("body_system"),
        },
    )  # fmt: skip
    row.text("question")
    return sample_of(exam, asked, where=row.where)


def _read(folder: Path, *, exam: Examination, config: str, count: int) -> Iterator[Sample | BadSample]:
    make = partial(_make, exam=exam, count=count, folder=folder)
    stem = f"medxpertqa_{config.lower()}_input.jsonl"
    path = first_file(folder, f"{config}/test.jsonl", stem, f"**/medxpertqa/input/{stem}")
    if path is not None:
        yield from all_of(read_json_lines(path), make)
    elif parquet_of(folder / config, "test"):
        yield from all_of(read_split(folder / config, "test", required=("id", "options", "label")), make)
    else:
        yield missing(folder, f"{config}/test.jsonl", URL)


def _example(folder: Path, *, config: str, count: int) -> None:
    rows: list[dict[str, Any]] = []
    (folder / "images").mkdir(exist_ok=True)
    for number in range(COUNT):
        options, right = options_of(number, count)
        if number == 5 and config == "MM":
            # As in 86 published questions: the options name parts of a picture, in another order than their letters.
            options = ["D", "E", "C", "B", "A"]
        listed = " ".join(f"({letter}) {text}" for letter, text in zip(LETTERS, options, strict=False))
        row: dict[str, Any] = {
            "id": f"{config}-{number}",
            "question": f"{vignette(number)}{_CHOICES} {listed}",
            "options": dict(zip(LETTERS, options, strict=False)),
            "label": LETTERS[right],
            "medical_task": ("Diagnosis", "Treatment", "Basic Science")[number % 3],
            "body_system": CASES[number % len(CASES)][3],
            "question_type": ("Reasoning", "Understanding")[number % 3 == 2],
        }
        if config == "MM":
            row["images"] = [f"MM-{number}-{place}.png" for place in "abcdef"[: 1 + number % 6]]
            for place, name in enumerate(row["images"]):
                (folder / "images" / name).write_bytes(png(number * 7 + place))
        rows.append(row)
    write_json_lines(folder / config / "test.jsonl", rows)


def _task(config: str, n: int, count: int, n_source: str, ids: str | None, **more: Any) -> Task:
    exam = Examination(source=f"medxpertqa-{config.lower()}", licence=LICENCE)
    return Task(
        name=exam.source,
        version=1,
        folder="medxpertqa",
        read=partial(_read, exam=exam, config=config, count=count),
        n=n,
        n_source=n_source,
        example=partial(_example, config=config, count=count),
        licence=LICENCE,
        url=URL,
        citation="Zuo et al., ICML (2025), arXiv:2501.18362",
        ids_sha256=ids,
        hub="TsinghuaC3I/MedXpertQA",
        **more,
    )


_FAULTS = (
    "The authors ask twice: reasoning first, then 'Therefore, among A through E, the answer is'; figures of asking "
    "once are not comparable. Their reader of answers is, as their README says, unsuitable for QVQ and DeepSeek-R1.",
)
TASKS = (
    _task(
        "MM", 2000, 5, "counted in the authors' medxpertqa_mm_input.jsonl: MM-0 to MM-1999",
        "67a371bb1676f7147300bcfd2581b7d9a07b15ba907dff9225000bebee2e7a13",
        title="MedXpertQA MM (one to six pictures)",
        about="Questions of specialist examinations about pictures, five options; by body system, task and kind.",
        published=(
            Published(metric="choice_accuracy", value=0.340, model="Hulu-Med-32B", source=TABLES, how=LETTER),
            Published(metric="choice_accuracy", value=0.339, model="MedGemma-27B", source=TABLES, how=LETTER),
            Published(metric="choice_accuracy", value=0.710, model="GPT-5", source=TABLES, how=LETTER),
        ),
        faults=(
            *_FAULTS,
            "86 questions have options that are letters in another order (A: D, B: E, C: C, D: B, E: A, parts of a "
            "picture): an answer B is the second option, not the one that reads B. A reader that looks for the text of "
            "an option first marks these wrong.",
            "1,581 questions have one picture, 236 two, 59 three, 22 four, 78 five, 24 six.",
        ),
    ),
    _task(
        "Text", 2450, 10, "4,460 questions in all (README) less 2,000 of MM and ten for development", None,
        title="MedXpertQA Text (ten options)",
        about="Questions of specialist examinations in words, ten options; by body system, task and kind.",
        published=(
            Published(metric="choice_accuracy", value=0.242, model="Hulu-Med-32B", source=TABLES, how=LETTER),
            Published(metric="choice_accuracy", value=0.562, model="GPT-5", source=TABLES, how=LETTER),
        ),
        faults=(*_FAULTS, "Ten options: chance is 10 %; a reader that stops at E makes half of them impossible."),
    ),
)  # fmt: skip
