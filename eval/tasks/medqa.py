"""MedQA (USMLE, four options): 1,273 questions in the style of the United States medical licensing examination.

Jin et al., Applied Sciences 11(14):6421 (2021). Read from phrases_no_exclude_test.jsonl, as the authors and
GBaker/MedQA-USMLE-4-options publish it, or from the columns sent1, ending0..3, label of the hub's
GBaker/MedQA-USMLE-4-options-hf, which lm-evaluation-harness reads: the same questions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.hub_tables import parquet_of, read_split
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.tables import Row, read_json_lines
from medvlm.eval.task import Published, Task
from medvlm.eval.tasks.examination import (
    Asked,
    Examination,
    agree,
    all_of,
    first_file,
    missing,
    option_columns,
    option_texts,
    place_of_letter,
    sample_of,
)
from medvlm.eval.tasks.made_up import COUNT, options_of, vignette, write_json_lines
from medvlm.eval.tasks.published import TABLES

EXAM = Examination(source="medqa", licence="MIT (repository of the authors)")
URL = "https://github.com/jind11/MedQA"
_NAMES = ("phrases_no_exclude_test.jsonl", "**/4_options/phrases_no_exclude_test.jsonl", "test.json*")


def _make(row: Row) -> Sample:
    if "ending0" in row.values:
        options = option_columns(row, [f"ending{place}" for place in range(4)])
        asked = Asked(
            question=" ".join(filter(None, (row.text("sent1"), row.written("sent2")))),
            options=options,
            right=_number(row, "label"),
        )
    else:
        options = option_texts(row, "options")
        right = agree(row, options, place_of_letter(row, "answer_idx"), row.text("answer"))
        step = row.written("meta_info").replace("stfep", "step")
        asked = Asked(question=row.text("question"), options=options, right=right, metadata={"examination": step})
    if len(asked.options) != 4:
        raise BadSample(
            f"{len(asked.options)} options, the benchmark has four",
            where=row.where,
            mend="use the table with four options (questions/US/4_options)",
        )
    return sample_of(EXAM, asked, where=row.where)


def _number(row: Row, key: str) -> int:
    text = row.text(key)
    if not text.isdigit():
        raise BadSample(f"{key!r} is {text!r}, no number", where=row.where, mend="use the table as published")
    return int(text)


def read(folder: Path) -> Iterator[Sample | BadSample]:
    """The test questions in ``folder``."""
    path = first_file(folder, *_NAMES)
    if path is not None:
        yield from all_of(read_json_lines(path), _make)
    elif parquet_of(folder, "test"):
        yield from all_of(read_split(folder, "test", required=()), _make)
    else:
        yield missing(folder, "phrases_no_exclude_test.jsonl", URL)


def example(folder: Path) -> None:
    rows = []
    for number in range(COUNT):
        options, right = options_of(number, 4)
        rows.append(
            {
                "question": vignette(number),
                "answer": options[right],
                "options": dict(zip("ABCD", options, strict=True)),
                "meta_info": ("step1", "step2&3")[number % 2],
                "answer_idx": "ABCD"[right],
                "metamap_phrases": [],
            }
        )
    write_json_lines(folder / "phrases_no_exclude_test.jsonl", rows)


TASKS = (
    Task(
        name="medqa",
        version=1,
        title="MedQA, USMLE, four options (text)",
        about="Questions in the style of the United States medical licensing examination, steps 1 to 3.",
        folder="medqa",
        read=read,
        n=1273,
        n_source="Jin et al. 2021, table 1; counted in a complete copy of phrases_no_exclude_test.jsonl",
        example=example,
        licence=EXAM.licence,
        url=URL,
        citation="Jin et al., Applied Sciences 11(14):6421 (2021), arXiv:2009.13081",
        ids_sha256="0f8998531fb89446ec288e575545ee851817f270afe7fa188a94ed41e122887c",
        hub="GBaker/MedQA-USMLE-4-options",
        published=(
            Published(
                metric="choice_accuracy", value=0.844, model="MedGemma-27B", source=TABLES,
                how="letter asked for and read by rules that fall back to the nearest option",
            ),
            Published(
                metric="choice_accuracy", value=0.955, model="GPT-5", source=TABLES,
                how="letter asked for and read by rules that fall back to the nearest option",
            ),
        ),
        faults=(
            "lm-evaluation-harness takes the most likely of the letters A to D instead of reading an answer: there a "
            "model cannot fail by writing no letter, so that the figures are not comparable.",
            "The five-option form of the same questions is another benchmark; a file with five options is refused.",
            "One question has options that are letters in another order (B, C, D, E): the answer B is the second one.",
            'One row says "stfep2&3" where the others say "step2&3".',
        ),
    ),
)  # fmt: skip
