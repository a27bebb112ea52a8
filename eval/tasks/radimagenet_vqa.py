"""RadImageNet-VQA, benchmark: 9,000 questions about 1,000 slices of CT and MR, made from the labels of RadImageNet.

Butsanets et al., MIDL (2026), arXiv:2512.17396. Read from the gated raidium/RadImageNet-VQA, configuration "benchmark"
(benchmark/test-*.parquet): image, question, choices, answer, question_type (multiple_choice, closed, open) and metadata
{content_type, correct_text, is_abnormal, location, modality, pathology, question_id}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medvlm.data_recipes.asking import YES_NO, ask, visual_at
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.hub_tables import parquet_of, read_split
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.tables import Row
from medvlm.eval.task import Task
from medvlm.eval.tasks.examination import (
    LETTERS,
    agree,
    all_of,
    fingerprint_of,
    missing,
    option_texts,
    place_of_letter,
)
from medvlm.eval.tasks.made_up import CASES, png, write_parquet

SOURCE = "radimagenet-vqa"
LICENCE = "RadImageNet's terms of use, for research; the card says Apache-2.0"
URL = "https://huggingface.co/datasets/raidium/RadImageNet-VQA"


def _about(row: Row) -> dict[str, Any]:
    value = row.values.get("metadata")
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise BadSample("'metadata' is no JSON", where=row.where, mend="use the table as published") from error
    if not isinstance(value, dict):
        raise BadSample("'metadata' must be an object", where=row.where, mend="use the table as published")
    return value


def _make(row: Row) -> Sample:
    about = Row(where=row.where, number=row.number, values=_about(row))
    picture = Path(row.text("image"))
    case = picture.stem[:16]
    question, kind = row.text("question"), row.text("question_type").replace("-", "_")
    shared: dict[str, Any] = {
        "sample_id": f"{SOURCE}/{case}/{kind}-{fingerprint_of(question, str(row.values.get('choices')))[:8]}",
        "patient_id": f"{SOURCE}/{case}", "source": SOURCE, "licence": LICENCE, "split": "test", "where": row.where,
        "visuals": [visual_at(picture, kind="image", where=row.where, mend="read the table again")],
        "topic": (about.optional("content_type") or "other").lower(),
        "metadata": {
            "modality": (about.optional("modality") or "unknown").upper(),
            "body_part": about.optional("location") or "unknown", "question_type": kind,
            "finding": about.optional("pathology") or "unknown",
        },
    }  # fmt: skip
    if kind == "multiple_choice":
        options = option_texts(row, "choices")
        right = agree(row, options, place_of_letter(row, "answer"), about.optional("correct_text"))
        return ask(prompt=question, kind="choice", choices=options, answers=[LETTERS[right]], **shared)
    answer = row.text("answer")
    if kind == "closed":
        return ask(prompt=question, kind="closed", choices=YES_NO, answers=[answer.lower().rstrip(".")], **shared)
    if kind == "open":
        return ask(prompt=f"{question} Answer briefly.", answers=[answer], **shared)
    raise BadSample(
        f"'question_type' is {kind!r}, expected multiple_choice, closed or open",
        where=row.where,
        mend="use the benchmark configuration as published",
    )


def read(folder: Path) -> Iterator[Sample | BadSample]:
    """The questions of the benchmark in ``folder``."""
    for place in (folder / "benchmark", folder):
        if parquet_of(place, "test"):
            columns = ("image", "question", "answer", "question_type", "metadata")
            yield from all_of(read_split(place, "test", required=columns), _make)
            return
    yield missing(folder, "benchmark/test-*.parquet", URL)


def example(folder: Path) -> None:
    rows: list[dict[str, Any]] = []
    regions = ("brain", "knee", "lung", "hip")
    for slice_ in range(8):
        complaint, _, finding, part = CASES[slice_ % len(CASES)]
        region = regions[slice_ % 4]
        image = {"bytes": png(slice_), "path": f"{slice_}.png"}
        about = {
            "is_abnormal": slice_ % 2 == 0,
            "location": region,
            "modality": ("ct", "mr")[slice_ % 2],
            "pathology": finding,
        }
        rows += [
            {
                "image": image, "question": f"Is anything abnormal on this invented slice of {part}?", "choices": None,
                "answer": ("yes", "no")[slice_ % 2], "question_type": "closed",
                "metadata": {**about, "content_type": "abnormality", "correct_text": None, "question_id": f"a{slice_}"},
            },
            {
                "image": image, "question": f"Which region does this slice show? The complaint: {complaint}.",
                "choices": list(regions), "answer": "ABCD"[slice_ % 4], "question_type": "multiple_choice",
                "metadata": {**about, "content_type": "anatomy", "correct_text": region, "question_id": f"b{slice_}"},
            },
            {
                "image": image, "question": "What is the finding?", "choices": None, "answer": finding,
                "question_type": "open",
                "metadata": {**about, "content_type": "pathology", "correct_text": None, "question_id": f"c{slice_}"},
            },
        ]  # fmt: skip
    write_parquet(folder / "benchmark" / "test-00000-of-00001.parquet", rows)


TASKS = (
    Task(
        name="radimagenet-vqa",
        version=1,
        title="RadImageNet-VQA, benchmark",
        about="Is it abnormal, which region, which finding: asked closed, as a choice and openly, of CT and MR.",
        folder="radimagenet-vqa",
        read=read,
        n=9000,
        n_source="2,000 choices, 5,000 closed and 2,000 open questions about 1,000 slices (card; not counted here)",
        example=example,
        licence=LICENCE,
        url=URL,
        citation="Butsanets et al., MIDL (2026), arXiv:2512.17396",
        access="gated",
        hub="raidium/RadImageNet-VQA",
        faults=(
            "Questions are filled into templates from labels; the labels name one finding of a slice, not all.",
            "Nine questions share a slice: the interval draws slices. No patients are named, so two slices of one "
            "patient count as two.",
            "Open answers are the wording of a label: exact match calls a right synonym wrong.",
            "The dataset's own terms and the licence on its card differ.",
        ),
    ),
)  # fmt: skip
