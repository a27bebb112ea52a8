"""MMMU, health and medicine, validation: 150 college questions with one to seven pictures.

Yue et al., CVPR (2024). Read from MMMU/MMMU as the hub holds it (<subject>/validation-*.parquet) or from JSON lines as
people export them (<subject>/validation.jsonl, <subject>.jsonl or one file of all), with the same keys and, as image_1
to image_7, paths relative to the folder. ``options`` and ``img_type`` are Python lists written as text.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from medvlm.data_recipes.asking import ask, visual_at
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.hub_tables import parquet_of, read_split
from medvlm.data_recipes.sample import Sample, VisualRef
from medvlm.data_recipes.tables import Row, read_json_lines
from medvlm.eval.task import Published, Task
from medvlm.eval.tasks.examination import LETTERS, all_of, first_file, missing, option_texts, place_of_letter
from medvlm.eval.tasks.made_up import CASES, options_of, png, write_parquet
from medvlm.eval.tasks.placed import in_their_places, mentioned
from medvlm.eval.tasks.published import LETTER, TABLES

SUBJECTS = (
    "Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy", "Public_Health",
)  # fmt: skip
SOURCE, LICENCE = "mmmu-med", "Apache-2.0"
URL = "https://github.com/MMMU-Benchmark/MMMU"


def _list(row: Row, key: str) -> list[str]:
    """A list of texts, or the same as Python writes it.

    Raises:
        BadSample: neither.
    """
    value = row.values.get(key)
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError) as error:
            raise BadSample(f"{key!r} is no list", where=row.where, mend="use the table as published") from error
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return [str(item) for item in value]
    raise BadSample(f"{key!r} must be a list of texts", where=row.where, mend="use the table as published")


def _pictures(row: Row, folder: Path) -> dict[int, VisualRef]:
    found: dict[int, VisualRef] = {}
    for number in range(1, 8):
        name = row.optional(f"image_{number}")
        if name is not None:
            path = Path(name) if Path(name).is_absolute() else folder / name
            found[number] = visual_at(path, kind="image", where=row.where, mend="export the pictures beside the table")
    if not found:
        raise BadSample("a question without a picture", where=row.where, mend="use the table with its pictures")
    return found


def _subject(name: str, where: str) -> str:
    """ "Pharmacy" of "validation_Pharmacy_3".

    Raises:
        BadSample: another split, or no number at the end.
    """
    split, _, rest = name.partition("_")
    subject, _, number = rest.rpartition("_")
    if split != "validation" or not number.isdigit():
        raise BadSample(
            f"{name!r} is no question of the validation split", where=where, mend="use the validation split"
        )
    return subject


def _make(row: Row, *, folder: Path) -> Sample | None:
    name = row.text("id")
    subject = _subject(name, row.where)
    if subject not in SUBJECTS:
        return None
    pictures = _pictures(row, folder)
    question, shared = row.text("question"), _shared(row, name, subject)
    if row.text("question_type") == "multiple-choice":
        listed = Row(where=row.where, number=row.number, values={"options": _list(row, "options")})
        options = option_texts(listed, "options")
        right = place_of_letter(row, "answer")
        if right >= len(options):
            raise BadSample("the answer is none of the options", where=row.where, mend="use the table as published")
        sample = ask(prompt=question, kind="choice", choices=options, answers=[LETTERS[right]], **shared)
    else:
        said = row.text("answer")
        answers = _list(row, "answer") if said.startswith("[") else [said]
        sample = ask(prompt=f"{question} Answer briefly.", kind="open", answers=answers, **shared)
    return in_their_places(sample, pictures, where=row.where)


def _shared(row: Row, name: str, subject: str) -> dict[str, Any]:
    kinds = _list(row, "img_type") if row.optional("img_type") else []
    return {
        "sample_id": f"{SOURCE}/{name}", "patient_id": f"{SOURCE}/{name}", "source": SOURCE, "licence": LICENCE,
        "split": "validation", "topic": subject.replace("_", " ").lower(), "where": row.where,
        "metadata": {
            "dimension": "2d", "subject": subject, "subfield": row.optional("subfield") or "unknown",
            "difficulty": row.optional("topic_difficulty") or "unknown", "modality": ", ".join(kinds) or "unknown",
            "pictures_in_options": bool(mentioned(str(row.values.get("options", "")))),
        },
    }  # fmt: skip


def read(folder: Path) -> Iterator[Sample | BadSample]:
    """The validation questions of the five subjects in ``folder``."""
    single = first_file(folder, "validation.jsonl", "mmmu*.jsonl")
    if single is not None:
        yield from all_of(read_json_lines(single), partial(_make, folder=single.parent))
        return
    for subject in SUBJECTS:
        path = first_file(folder, f"{subject}/validation.jsonl", f"{subject}.jsonl")
        if path is not None:
            yield from all_of(read_json_lines(path), partial(_make, folder=path.parent))
        elif parquet_of(folder / subject, "validation"):
            rows = read_split(folder / subject, "validation", required=("id", "question", "options", "answer"))
            yield from all_of(rows, partial(_make, folder=folder / subject))
        else:
            yield missing(folder, f"{subject}/validation-*.parquet", URL)


def example(folder: Path) -> None:
    for order, subject in enumerate(SUBJECTS):
        rows = []
        for number in range(1, 6):
            rows.append(_example_row(subject, number, order * 5 + number))
        write_parquet(folder / subject / "validation-00000-of-00001.parquet", rows)


def _example_row(subject: str, number: int, seed: int) -> dict[str, Any]:
    complaint, organ, finding, _ = CASES[seed % len(CASES)]
    shown = {
        1: png(seed),
        **({2: png(seed + 100)} if number % 2 else {}),
        **({3: png(seed + 200)} if number == 3 else {}),
    }
    options, right = options_of(seed, (4, 3, 2, 5)[seed % 4])
    question = f"Invented case {seed} with {complaint}: {finding} in {organ}, see <image 1>."
    if number == 3:
        options, right = ["<image 2>", "<image 3>"], seed % 2
    elif number % 2:
        question += " Compare it with <image 2>, and again with <image 1>. What comes next?"
    open_answer = number == 4
    return {
        "id": f"validation_{subject}_{number}",
        "question": question,
        "options": "[]" if open_answer else repr(options),
        "explanation": "",
        **{
            f"image_{place}": {"bytes": shown[place], "path": f"{place}.png"} if place in shown else None
            for place in range(1, 8)
        },
        "img_type": "['Body Scans: MRI, CT scans, and X-rays']",
        "answer": f"{seed} mm" if open_answer else LETTERS[right],
        "topic_difficulty": ("Easy", "Medium", "Hard")[number % 3],
        "question_type": "open" if open_answer else "multiple-choice",
        "subfield": "Invented",
    }


TASKS = (
    Task(
        name="mmmu-med-val",
        version=1,
        title="MMMU, health and medicine, validation",
        about="College questions of five medical subjects, with pictures between the words and sometimes as options.",
        folder="mmmu",
        read=read,
        n=150,
        n_source="30 in each of five subjects: answer_dict_val.json of the authors (145 choices, 5 short answers)",
        example=example,
        licence=LICENCE,
        url=URL,
        citation="Yue et al., CVPR (2024), arXiv:2311.16502",
        ids_sha256="3d728a05c5b8d277e24ae8eddbd6644bd323a83ff8b194ebdf3da097862e0e84",
        hub="MMMU/MMMU",
        published=(
            Published(metric="choice_accuracy", value=0.652, model="InternVL3-38B", source=TABLES, how=LETTER),
            Published(metric="choice_accuracy", value=0.604, model="Hulu-Med-32B", source=TABLES, how=LETTER),
            Published(metric="choice_accuracy", value=0.836, model="GPT-5", source=TABLES, how=LETTER),
        ),
        faults=(
            "The authors' code picks an option AT RANDOM where it cannot read an answer (MMMU issue 72): a model that "
            "answers nothing scores about 25 %. Here that is 0 and counted as unread.",
            "The same answers of one model score 50.7 or 54.8 on all of MMMU by harness alone (lmms-eval's "
            "mmmu-eval-discrepancy.md).",
            "5 of the 150 have a short answer and no options; choice_accuracy is over the other 145. The published "
            "figures pool all 150. Three of these answers are single letters of labels in a picture.",
            "The answers of the 1,752 test questions are withheld.",
            "Pictures can be options: they stand in the place of their words; without pictures the question is void.",
        ),
    ),
)  # fmt: skip
