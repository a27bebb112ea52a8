"""MedQA: multiple choice questions of the United States medical licensing examination (text only).

Jin et al., What disease does this patient have? A large-scale open domain question answering dataset from medical
exams, Applied Sciences 11(14):6421 (2021). US/{train,dev,test}.jsonl give five options, US/4_options/
phrases_no_exclude_{train,dev,test}.jsonl the same questions with four, as most scores are reported. Rows hold question,
answer, options (letter -> text), meta_info (the step of the examination) and answer_idx (the letter). The Chinese
examinations of the same release have the same keys and are not built.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from medvlm.data_recipes.asking import ask
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.sample import Sample, Split
from medvlm.data_recipes.tables import Row, make_samples, read_json_lines

SPLITS: dict[str, Split] = {"train": "train", "dev": "validation", "test": "test"}
KEYS = {"question", "answer", "options", "meta_info", "answer_idx"}


def _tables(folder: Path) -> list[tuple[Path, Split]]:
    """Tables with four options, here or in 4_options, then those with five."""
    places = [
        *((folder / place / f"phrases_no_exclude_{part}.jsonl", split) for place in ("", "4_options")
          for part, split in SPLITS.items()),
        *((folder / f"{part}.jsonl", split) for part, split in SPLITS.items()),
    ]  # fmt: skip
    return [(path, split) for path, split in places if _is_usmle(path)]


def _is_usmle(path: Path) -> bool:
    """The first row has the keys of MedQA and a step of the American examination ("step1", "step2&3")."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        first = next((line for line in file if line.strip()), "")
    return all(f'"{key}"' in first for key in KEYS) and '"step' in first


def _options(row: Row) -> tuple[str, ...]:
    options = row.values.get("options")
    letters = [chr(ord("A") + place) for place in range(len(options))] if isinstance(options, dict) else []
    if not isinstance(options, dict) or len(letters) < 2 or sorted(options) != letters:
        raise BadSample("'options' must map A, B, C, ... to texts", where=row.where, mend="use the file as published")
    texts = Row(where=row.where, number=row.number, values=options)
    return tuple(texts.text(letter) for letter in letters)


def _make(row: Row, *, split: Split, form: str) -> Iterable[Sample]:
    choices, letter, question = _options(row), row.text("answer_idx"), row.text("question")
    place = ord(letter) - ord("A") if len(letter) == 1 else -1
    if not 0 <= place < len(choices) or choices[place] != row.text("answer"):
        raise BadSample(
            f"answer_idx {letter!r} does not name the answer among {len(choices)} options",
            where=row.where,
            mend="correct the row",
        )
    # The same question with four and with five options is one case.
    case = hashlib.sha256(question.lower().encode()).hexdigest()[:16]
    yield ask(
        sample_id=f"{RECIPE.name}/{form}/{row.number}",
        patient_id=f"{RECIPE.name}/{case}",
        source=RECIPE.name,
        licence=RECIPE.licence,
        split=split,
        prompt=question,
        answers=[letter],
        kind="choice",
        choices=choices,
        topic="knowledge",
        where=row.where,
        metadata={"official_split": True, "options": len(choices), "examination": row.text("meta_info")},
    )


def _build(folder: Path) -> Iterator[Sample | BadSample]:
    for path, split in _tables(folder):
        four = path.stem.startswith("phrases")
        form = f"{'four' if four else 'five'}-options/{path.stem.removeprefix('phrases_no_exclude_')}"
        yield from make_samples(read_json_lines(path), partial(_make, split=split, form=form))


RECIPE = Recipe(
    name="medqa",
    version="jind11/MedQA, US (2021)",
    licence="MIT (repository of the authors); terms of the examination's owners are not stated",
    url="https://github.com/jind11/MedQA",
    citation="Jin et al., Applied Sciences 11(14):6421 (2021), arXiv:2009.13081",
    owned=(
        *(f"{part}.jsonl" for part in SPLITS), *(f"phrases_no_exclude_{part}.jsonl" for part in SPLITS),
        *(f"4_options/phrases_no_exclude_{part}.jsonl" for part in SPLITS), "US_qbank.jsonl",
        "4_options/phrases_no_exclude_US_qbank.jsonl", "metamap/**/*", "metamap_extracted_phrases/**/*",
    ),
    matches=lambda folder: bool(_tables(folder)),
    build=_build,
    about=(
        "12,723 questions of the United States medical licensing examination with five options, and the same "
        "questions with four. There are no images: it keeps a model's knowledge of medicine in the mixture, and its "
        "test split is a standard benchmark of language models."
    ),
    layout="FOLDER/                                     questions/US of the authors' archive\n"
    "  train.jsonl, dev.jsonl, test.jsonl        five options\n"
    "  4_options/\n"
    "    phrases_no_exclude_{train,dev,test}.jsonl\n"
    "or the files phrases_no_exclude_*.jsonl alone, as GBaker/MedQA-USMLE-4-options holds them",
    questions=("choice: the question with its four or five lettered options, answered by the letter",),
    faults=(
        "With both forms in the folder, each question is asked twice, under `medqa/four-options/` and "
        "`medqa/five-options/`; move one form away to have it once.",
        "The mainland and Taiwan examinations of the archive are in Chinese and are not built.",
        "dev is the validation split.",
    ),
    measured="The published test table with four options: 1,273 samples, none refused, no question twice.",
)  # fmt: skip
