"""PMC-VQA: four-way questions about figures of open articles; two tests that are often taken for one."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.hub_tables import place_of
from medvlm.data_recipes.recipes import pmc_vqa
from medvlm.data_recipes.sample import Sample
from medvlm.eval.task import Published, Task
from medvlm.eval.tasks.drawn_pictures import draw
from medvlm.eval.tasks.published_vqa import HULU, LINGSHU, nearest

CLEAN, SECOND = "test_clean.csv", "test_2.csv"


def read(folder: Path, *, table: str) -> Iterator[Sample | BadSample]:
    """Questions of one table.

    Raises:
        BadSample: it is not here.
    """
    place = place_of(folder, table)
    if place is None:
        raise BadSample(
            f"{table} is not here",
            where=str(folder),
            mend=f"download {pmc_vqa.RECIPE.url} and unpack its pictures beside the table",
        )
    yield from pmc_vqa.table_samples(place, table)


TEXTS = (
    ("What kind of picture is shown?", ("Computed tomography", "Ultrasound", "Micrograph", "Photograph")),
    ("Which structure does the arrow mark?", ("Liver", "Spleen", "A cyst", "Left kidney, lower pole")),
    ("What colour is the stained region?", ("Red", "Blue", "Green", "")),
)
"""Of the example: question, choices; one has an "A" that is no letter, one a comma, one no text."""


def example(folder: Path, *, table: str) -> None:
    """30 questions about ten figures of five articles, the key in each of its published spellings."""
    second = table == SECOND
    header = ["Figure_path", "Question", "Choice A", "Choice B", "Choice C", "Choice D", "Answer"]
    header = ["index", "Figure_path", "Caption", *header[1:], "split"] if second else [*header, "Answer_label"]
    rows: list[list[str | int]] = []
    for number in range(30):
        question, texts = TEXTS[number % 3]
        letter = "ABC"[(number // 3) % 3]
        name = f"PMC{number // 6 + 1}_F{number % 2}.jpg"
        draw(folder / ("figures" if second else "images") / name)
        choices = [f" {key}:{text}" for key, text in zip("ABCD", texts, strict=True)]
        if second:
            rows.append([number, name, "A caption, with a comma.", question, *choices, letter, "test"])
        else:
            rows.append([name, question, *choices, texts["ABCD".index(letter)], letter])
    with (folder / table).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


_FAULTS = (
    "test_clean.csv (2,000; checked by hand; version 1) and test_2.csv (33,430; version 2) are both called PMC-VQA; "
    "figures on one say nothing about the other. MedEvalKit uses test_2.csv.",
    'The choices begin with their letter (" A:..."); it is taken off, so that no letter is shown twice.',
    "The key is a text in version 1 (its letter in Answer_label) and a letter in version 2.",
    "Questions were made from captions by a language model; some can be answered from the choices alone.",
    "Figures of one article count as one patient. Modality and body part are not told.",
)


def _task(name: str, table: str, number: int, source: str, title: str, published: tuple[Published, ...]) -> Task:
    return Task(
        name=name,
        version=1,
        title=title,
        about="Multiple-choice questions with four options about figures of articles in PubMed Central.",
        folder="pmc-vqa",
        read=partial(read, table=table),
        n=number,
        n_source=source,
        example=partial(example, table=table),
        licence="CC BY-SA",
        url=pmc_vqa.RECIPE.url,
        citation="Zhang et al., arXiv 2305.10415 (2023)",
        hub=pmc_vqa.HUB,
        published=published,
        faults=_FAULTS,
    )


TASKS = (
    _task(
        "pmc-vqa-clean", CLEAN, 2000, "test_clean.csv of RadGenome/PMC-VQA: 2,000 questions; OctoMed/PMC-VQA has as "
        "many",
        "PMC-VQA, the 2,000 test questions checked by hand", (),
    ),
    _task(
        "pmc-vqa", SECOND, 33_430, "test_2.csv of RadGenome/PMC-VQA: 33,430 questions, as in the project's benchmark "
        "notes",
        "PMC-VQA version 2, single figures",
        (
            nearest("GPT-4.1", 55.2, LINGSHU), nearest("GPT-5", 60.0, HULU), nearest("Hulu-Med-32B", 69.4, HULU),
        ),
    ),
)  # fmt: skip
