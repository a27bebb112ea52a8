"""PubMedQA, the 500 labelled test questions: yes, no or maybe from an abstract.

Jin et al., EMNLP (2019). Read from ori_pqal.json with test_ground_truth.json, as the authors publish them, or from the
test split of openlifescienceai/pubmedqa. A table of all 1,000 labelled questions without the list of the test ones
(pqa_labeled of qiaojin/PubMedQA) is refused: half of it is for training.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from medvlm.data_recipes.asking import ask
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.hub_tables import parquet_of, read_split
from medvlm.data_recipes.recipes import pubmedqa
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.tables import Row
from medvlm.eval.task import Published, Task
from medvlm.eval.tasks.examination import all_of, fingerprint_of, missing, numbered
from medvlm.eval.tasks.made_up import CASES, COUNT
from medvlm.eval.tasks.published import LETTER, TABLES

SOURCE = pubmedqa.RECIPE.name
LICENCE = pubmedqa.RECIPE.licence


def _named(sample: Sample) -> Sample:
    """The same question under the name that every copy gives it: copies on the hub have no PMIDs."""
    prompt = sample.turns[-1].text
    asked = prompt.rsplit("\nQuestion: ", 1)[1].removesuffix(" Answer yes, no or maybe.")
    pmid = sample.patient_id.removeprefix(f"{SOURCE}/")
    return replace(sample, sample_id=f"{SOURCE}/{fingerprint_of(asked)}", metadata={**sample.metadata, "pmid": pmid})


def _original(folder: Path) -> Iterator[Sample | BadSample]:
    for sample in pubmedqa.RECIPE.build(folder):
        if isinstance(sample, BadSample):
            yield sample
        elif sample.split == "test" and sample.sample_id.endswith("/decision"):
            yield _named(sample)


def _hub(row: Row) -> Sample:
    data = row.values.get("data")
    if not isinstance(data, dict):
        raise BadSample("'data' must be a struct", where=row.where, mend="use openlifescienceai/pubmedqa as it is")
    inner = Row(where=row.where, number=row.number, values=data)
    contexts = data.get("Context")
    if not isinstance(contexts, list) or not contexts or not all(isinstance(part, str) for part in contexts):
        raise BadSample("'data.Context' must be a list of texts", where=row.where, mend="use the table as published")
    question = inner.text("Question")
    name = f"{SOURCE}/{fingerprint_of(question)}"
    return ask(
        sample_id=name,
        patient_id=name,
        source=SOURCE,
        licence=LICENCE,
        split="test",
        prompt="\n".join(contexts) + f"\nQuestion: {question}",
        answers=[inner.text("Final Decision").lower()],
        kind="closed",
        choices=pubmedqa.DECISIONS,
        topic="decision",
        where=row.where,
    )


def read(folder: Path) -> Iterator[Sample | BadSample]:
    """The test questions in ``folder``."""
    if pubmedqa.RECIPE.matches(folder):
        yield from numbered(_original(folder))
    elif parquet_of(folder, "test"):
        yield from all_of(read_split(folder, "test", required=("data",)), _hub)
    else:
        yield missing(folder, "data/ori_pqal.json with test_ground_truth.json", pubmedqa.RECIPE.url)


def example(folder: Path) -> None:
    table: dict[str, Any] = {}
    truth: dict[str, str] = {}
    for number in range(COUNT + 6):
        complaint, organ, finding, _ = CASES[number % len(CASES)]
        decision = pubmedqa.DECISIONS[number % 3]
        table[str(90000000 + number)] = {
            "QUESTION": f"Does study {number + 1} show {finding} in {organ} of those who had {complaint}?",
            "CONTEXTS": [f"We invented {number + 10} people with {complaint}.", f"{finding.capitalize()} was counted."],
            "LABELS": ["METHODS", "RESULTS"],
            "YEAR": "2020",
            "final_decision": decision,
            "LONG_ANSWER": "Nothing follows from invented people.",
        }
        if number < COUNT:
            truth[str(90000000 + number)] = decision
    data = folder / "data"
    data.mkdir()
    (data / pubmedqa.TABLE).write_text(json.dumps(table), encoding="utf-8")
    (data / pubmedqa.TRUTH).write_text(json.dumps(truth), encoding="utf-8")


TASKS = (
    Task(
        name="pubmedqa",
        version=1,
        title="PubMedQA, labelled, test (text)",
        about="Research questions from titles, answered yes, no or maybe from the abstract before its end.",
        folder="pubmedqa",
        read=read,
        n=500,
        n_source="test_ground_truth.json of the authors: 276 yes, 169 no, 55 maybe",
        example=example,
        licence=LICENCE,
        url=pubmedqa.RECIPE.url,
        citation=pubmedqa.RECIPE.citation,
        ids_sha256="de51f99e9a0fb0472ea540fd92596ad87c385607dd478179a2d5ba05e2150041",
        hub="openlifescienceai/pubmedqa",
        published=(
            Published(
                metric="closed_accuracy", value=0.808, model="Hulu-Med-32B", source=TABLES,
                how=f"asked as a choice of A, B and C. {LETTER}",
            ),
            Published(
                metric="closed_accuracy", value=0.786, model="Claude Sonnet 4", source=TABLES,
                how=f"asked as a choice of A, B and C. {LETTER}",
            ),
        ),
        faults=(
            "MedEvalKit turns the question into options A, B and C, lm-evaluation-harness takes the most likely of "
            "yes, no and maybe: not comparable with an answer that is written.",
            "276 of 500 answers are yes: a constant yes scores 55.2 %.",
            "All 1,000 labelled questions stand in one file; who scores all of them scores on training questions.",
        ),
    ),
)  # fmt: skip
