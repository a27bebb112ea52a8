"""M3D-VQA: multiple choice questions about the volumes of M3D-Cap, made of their texts by a language model.

Bai et al., M3D (2024), arXiv:2404.00578. M3D_VQA_{train,val,test}.csv hold Image Path, Text, Question Type (1 plane,
2 phase, 3 organ, 4 abnormality, 5 location), Question, Choice A to D, Answer and Answer Choice. Each row becomes two
questions, as its authors ask it: with its choices, and openly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from medvlm.data_recipes.asking import ask
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.recipes.m3d_cap import case_of, volume_at
from medvlm.data_recipes.sample import Sample, Split
from medvlm.data_recipes.tables import Row, read_csv

Form = Literal["choice", "open"]
FORMS: tuple[Form, ...] = ("choice", "open")
TABLES: dict[str, Split] = {
    "M3D_VQA_train.csv": "train", "M3D_VQA_val.csv": "validation", "M3D_VQA_test.csv": "test",
}  # fmt: skip
PLACES = ("M3D-VQA", "M3D_VQA", "")
TOPICS = {"1": "plane", "2": "phase", "3": "organ", "4": "abnormality", "5": "location"}
LETTERS = "ABCD"
COLUMNS = (
    "Image Path", "Question Type", "Question", *(f"Choice {letter}" for letter in LETTERS), "Answer", "Answer Choice",
)  # fmt: skip
UNFILLED = "NA"
"""What the authors' script writes for a choice that the language model did not give."""


def table_of(folder: Path, table: str) -> Path | None:
    """A table below ``folder``: beside the volumes, or in a folder of its own."""
    return next((path for place in PLACES if (path := folder / place / table).is_file()), None)


def _choices(row: Row) -> tuple[tuple[str, ...], str]:
    """Choices up to the last that was filled, and the right letter.

    Raises:
        BadSample: the letter names none of them.
    """
    choices = [row.written(f"Choice {letter}") or UNFILLED for letter in LETTERS]
    while choices and choices[-1] == UNFILLED:
        choices.pop()
    letter = row.text("Answer Choice")
    if len(letter) != 1 or letter not in LETTERS[: len(choices)] or len(choices) < 2:
        raise BadSample(
            f"Answer Choice {letter!r} names none of {len(choices)} choices", where=row.where, mend="correct the row"
        )
    return tuple(choices), letter


def _plain(text: str) -> str:
    return " ".join(text.split()).strip(" .").casefold()


def _questions(row: Row, name: str, split: Split, folder: Path, forms: Sequence[Form]) -> Iterator[Sample]:
    image, kind = row.text("Image Path"), row.text("Question Type")
    if kind not in TOPICS:
        raise BadSample(f"Question Type is {kind!r}, expected 1 to 5", where=row.where, mend="use the published table")
    case, answer = case_of(image, row.where), row.text("Answer")
    choices, letter = _choices(row)
    differs = _plain(choices[LETTERS.index(letter)]) != _plain(answer)
    if differs and split == "train":
        raise BadSample(
            f"choice {letter} is not the Answer {answer!r}: nothing tells which of them is right",
            where=row.where,
            mend="correct the row or leave it out",
        )
    shared: dict[str, Any] = {
        "patient_id": f"radiopaedia/{case}", "study_id": f"radiopaedia/{case}", "source": RECIPE.name,
        "licence": RECIPE.licence, "split": split, "visuals": [volume_at(folder, image, row.where)],
        "prompt": row.text("Question"), "topic": TOPICS[kind], "where": row.where,
        "metadata": {
            "official_split": True, "modality": "CT", "language": "en",
            **({"letter_and_answer_differ": True} if differs else {}),
        },
    }  # fmt: skip
    if "choice" in forms:
        yield ask(sample_id=f"{name}/choice", answers=[letter], kind="choice", choices=choices, **shared)
    if "open" in forms:
        yield ask(sample_id=f"{name}/open", answers=[answer], kind="open", **shared)


def table_samples(
    folder: Path, table: str, split: Split, forms: Sequence[Form] = FORMS
) -> Iterator[Sample | BadSample]:
    """The questions of one table; nothing where it is not there.

    Args:
        table: name of the file.
        forms: in which each row is asked.
    """
    path = table_of(folder, table)
    if path is None:
        return
    stem = f"{RECIPE.name}/{table.removesuffix('.csv').removeprefix('M3D_VQA_')}"
    for number, row in enumerate(read_csv(path, required=COLUMNS), start=1):
        try:
            if isinstance(row, BadSample):
                raise row
            yield from list(_questions(row, f"{stem}/{number}", split, folder, forms))
        except BadSample as bad:
            yield bad


def _build(folder: Path) -> Iterator[Sample | BadSample]:
    for table, split in TABLES.items():
        yield from table_samples(folder, table, split)


RECIPE = Recipe(
    name="m3d-vqa",
    version="GoodBaiBai88/M3D-VQA (2024)",
    licence="Apache-2.0 as stated by M3D; the cases are Radiopaedia's, for non-commercial use",
    url="https://huggingface.co/datasets/GoodBaiBai88/M3D-VQA",
    citation="Bai et al., arXiv:2404.00578 (2024)",
    owned=(*(f"{place}/M3D_VQA_*.csv".removeprefix("/") for place in PLACES), "M3D_Cap_npy/**/*", "M3D_Cap/**/*"),
    matches=lambda folder: any(table_of(folder, table) is not None for table in TABLES),
    build=_build,
    about=(
        "509,755 questions about 96,170 volumes of M3D-Cap (plane, phase, organ, abnormality, location), made of the "
        "texts by a language model (Qwen-72B). The volumes are those of M3D-Cap and lie in the same folder."
    ),
    layout=(
        "FOLDER/\n"
        "  M3D-VQA/M3D_VQA_{train,val,test}.csv           or beside the volumes\n"
        "  M3D_Cap_npy/{ct_case,ct_quizze}/<case>/<series>.npy"
    ),
    questions=("choice: with the choices of the row, lettered", "open: the same question without them"),
    faults=(
        "Questions and answers were written by a language model that saw the text and the file's name, not the volume.",
        "Choices that it left out stand as NA in the table; they are not shown where they are the last ones.",
        "A row whose letter does not point at its answer is refused for training; in the other splits the letter is "
        "right for the choice and the text for the open question, and `letter_and_answer_differ` marks it.",
        "M3D_VQA_yn_train.csv (yes/no questions for training) has another layout and is not read.",
    ),
)
