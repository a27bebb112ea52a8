"""PMC-VQA: four-way questions about figures of PubMed Central, made from captions by a language model.

Zhang et al., PMC-VQA: visual instruction tuning for medical visual question answering, arXiv 2305.10415 (2023). Version
1 (train.csv, test.csv, test_clean.csv; images.zip) has compound figures, version 2 (train_2.csv, test_2.csv;
images_2.zip) single ones. They name the key differently: version 1 by its text and, in ``Answer_label``, by its letter,
version 2 by its letter alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medvlm.data_recipes.asking import ask, visual_at
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.sample import Sample, Split
from medvlm.data_recipes.tables import Row, read_csv

HUB = "RadGenome/PMC-VQA"
LETTERS = "ABCD"
COLUMNS = ("Figure_path", "Question", *(f"Choice {letter}" for letter in LETTERS), "Answer")
NO_TEXT = "(no text)"
"""Stands for a choice that the published table leaves empty: the letters of the others stay as they are."""
_ARTICLE = re.compile(r"PMC\d+")


@dataclass(frozen=True, kw_only=True)
class Table:
    """One published table: its split, and where its figures are looked for, the first folder that has one counts."""

    split: Split
    figures: tuple[str, ...]


FIRST, SECOND = ("images", "images/images", "figures", "."), ("figures", "images_2/figures", "images_2", "images", ".")
TABLES: dict[str, Table] = {
    "train.csv": Table(split="train", figures=FIRST),
    "test.csv": Table(split="test", figures=FIRST),
    "test_clean.csv": Table(split="test", figures=FIRST),
    "train_2.csv": Table(split="train", figures=SECOND),
    "test_2.csv": Table(split="test", figures=SECOND),
}


def choice_texts(row: Row) -> tuple[str, ...]:
    """The choices without the letters that the table writes before them (" A:Diffuse uptake")."""
    texts = []
    for letter in LETTERS:
        written = row.written(f"Choice {letter}")
        texts.append(re.sub(rf"^{letter}\s*[:.)]\s*", "", written) or NO_TEXT)
    return tuple(texts)


def key_of(row: Row, choices: tuple[str, ...]) -> str:
    """The letter of the right choice.

    Raises:
        BadSample: no column names one choice.
    """
    label, answer = row.written("Answer_label").upper().rstrip(".:"), row.written("Answer")
    for letter in (label, answer.rstrip(".:")):
        if len(letter) == 1 and letter in LETTERS:
            return letter
    plain = re.sub(r"^[A-D]\s*:\s*", "", answer).lower()
    found = [letter for letter, text in zip(LETTERS, choices, strict=True) if text.lower() == plain]
    if len(found) != 1:
        raise BadSample(
            f"the answer is {len(found)} of the four choices" if found else "the answer is none of the four choices",
            where=row.where,
            mend="use the table as published",
        )
    return found[0]


def _figure(row: Row, folder: Path, table: Table) -> Path:
    name = row.text("Figure_path")
    places = [folder / place / name for place in table.figures]
    return next((path for path in places if path.is_file()), places[0])


def _make(row: Row, *, folder: Path, name: str, number: int) -> Sample:
    table, choices = TABLES[name], choice_texts(row)
    figure = _figure(row, folder, table)
    article = _ARTICLE.match(figure.name)
    archive = "images_2.zip" if name.endswith("_2.csv") else "images.zip"
    return ask(
        sample_id=f"{RECIPE.name}/{name.removesuffix('.csv')}/{number}",
        patient_id=f"pmc/{article[0] if article else figure.stem}",
        source=RECIPE.name,
        licence=RECIPE.licence,
        split=table.split,
        visuals=[
            visual_at(figure, kind="image", where=row.where, mend=f"unpack {archive} of {RECIPE.url} in {folder}")
        ],
        prompt=row.text("Question"),
        answers=[key_of(row, choices)],
        kind="choice",
        choices=choices,
        where=row.where,
        metadata={"official_split": True, "modality": "unknown", "language": "en", "figure": figure.name},
    )


def table_samples(folder: Path, name: str) -> Iterator[Sample | BadSample]:
    """Samples of one table, each named by the number of its row from 1."""
    for number, row in enumerate(read_csv(folder / name, required=COLUMNS), start=1):
        try:
            yield row if isinstance(row, BadSample) else _make(row, folder=folder, name=name, number=number)
        except BadSample as bad:
            yield bad


def _tables(folder: Path) -> list[str]:
    return [name for name in TABLES if (folder / name).is_file()]


def _matches(folder: Path) -> bool:
    names = _tables(folder)
    if not names:
        return False
    with (folder / names[0]).open(encoding="utf-8-sig", errors="replace") as lines:
        header = next(lines, "")
    return all(column in header for column in COLUMNS)


def _build(folder: Path) -> Iterator[Sample | BadSample]:
    for name in _tables(folder):
        yield from table_samples(folder, name)


RECIPE = Recipe(
    name="pmc-vqa",
    version="versions 1 and 2 (2023)",
    licence="CC BY-SA",
    url="https://huggingface.co/datasets/RadGenome/PMC-VQA",
    citation="Zhang et al., arXiv 2305.10415 (2023)",
    owned=(*TABLES, *("images/**/*", "images_2/**/*", "figures/**/*", "README.md")),
    matches=_matches,
    build=_build,
    about=(
        "Multiple-choice questions with four options about figures of open articles, made from the captions by a "
        "language model; 2,000 of the test questions were checked by hand. The largest public set of its kind."
    ),
    layout=(
        f"a snapshot of hub dataset {HUB} with its archives unpacked:\nFOLDER/\n"
        "  train.csv, test.csv, test_clean.csv      version 1\n  images/PMC<N>_F<M>.jpg\n"
        "  train_2.csv, test_2.csv                  version 2: single figures\n  figures/PMC<N>_..._<M>.jpg\n"
        "(any of the tables)"
    ),
    questions=("choice: four lettered options",),
    faults=(
        "test_clean.csv (2,000) and test_2.csv (33,430) are different tests of different versions; both are called "
        "PMC-VQA in tables.",
        'Choices begin with their letter (" A:..."); it is taken off, so that the letter stands there once.',
        "Version 1 names the key by its text, version 2 by its letter.",
        "Questions of one article are in one test and in the training table of the other version.",
        "The questions were made from captions, so some can be answered without the figure, and some only with the "
        "caption.",
        'An empty choice is shown as "(no text)".',
    ),
)
