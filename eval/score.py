"""The score stage: one row per response with all that aggregation needs, as counts that add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medvlm.data_recipes.sample import Question
from medvlm.eval.controls import patient_of
from medvlm.eval.metric import Answered, Marks, Scorer
from medvlm.eval.plan import Item
from medvlm.eval.rows import Row, write_rows
from medvlm.eval.scorers.catalogue import SCORERS
from medvlm.eval.strata import strata_of

DEFAULT: tuple[Scorer, ...] = tuple(one for one in SCORERS if not one.added)


def marks_of(answers: Sequence[Answered], scorers: Sequence[Scorer] = DEFAULT) -> list[Marks]:
    """The marks of all ``scorers`` of each answer, put together; what could not be read scores as an empty answer.

    Raises:
        ValueError: a scorer gave another number of marks than it got answers, or two gave the same key.
    """
    marks: list[Marks] = [{"flags": []} for _ in answers]
    for scorer in scorers:
        places = [place for place, one in enumerate(answers) if one.question.kind in scorer.kinds]
        if not places:
            continue
        given = scorer.score([answers[place] for place in places])
        if len(given) != len(places):
            raise ValueError(f"scorer {scorer.name} gave {len(given)} marks to {len(places)} answers")
        for place, mark in zip(places, given, strict=True):
            if mark is None:
                continue
            marks[place]["flags"] += [f"{scorer.name}: {flag}" for flag in mark.get("flags", ())]
            twice = (marks[place].keys() & mark.keys()) - {"flags"}
            if twice:
                raise ValueError(f"scorer {scorer.name} marks {sorted(twice)}, which another has marked before")
            marks[place] |= {key: value for key, value in mark.items() if key != "flags"}
    return marks


def answered(
    responses: Sequence[Row],
    extractions: Sequence[Row],
    items: Mapping[str, Item],
    asked: Mapping[str, tuple[Question, str]],
) -> list[Answered]:
    """Responses as scorers see them.

    Raises:
        ValueError: a response has no extraction.
    """
    values = {row["request_id"]: row["value"] for row in extractions}
    for response in responses:
        if response["request_id"] not in values:
            raise ValueError(f"request {response['request_id']} has no row in extractions.jsonl; run extract again")
    return [
        Answered(
            item=items[response["sample_id"]],
            question=asked[response["request_id"]][0],
            prompt=asked[response["request_id"]][1],
            condition=response["condition"],
            written=response["text"],
            value=values[response["request_id"]],
        )
        for response in responses
    ]


def score_rows(
    responses: Sequence[Row],
    extractions: Sequence[Row],
    items: Mapping[str, Item],
    out: Path,
    *,
    asked: Mapping[str, tuple[Question, str]],
) -> list[Row]:
    """Write ``out``/scores.jsonl, replaced whole.

    Args:
        responses, extractions: rows of the two stages before, about the same requests.
        items: sample_id -> item.
        asked: request_id -> (question, its text as asked).

    Raises:
        ValueError: a response has no extraction.
    """
    extracted = {row["request_id"]: row for row in extractions}
    answers = answered(responses, extractions, items, asked)
    marks: dict[int, Marks] = {}
    for condition in dict.fromkeys(one.condition for one in answers):
        places = [place for place, one in enumerate(answers) if one.condition == condition]
        marks |= dict(zip(places, marks_of([answers[place] for place in places]), strict=True))
    rows: list[Row] = []
    for place, (response, one) in enumerate(zip(responses, answers, strict=True)):
        extraction, sample = extracted[response["request_id"]], one.item.sample
        rows.append(
            {
                "request_id": response["request_id"],
                "sample_id": response["sample_id"],
                "patient": patient_of(sample),
                "study": f"{sample.source}/{sample.study_id}",
                "condition": response["condition"],
                "kind": one.question.kind,
                "topic": one.question.topic,
                "dimension": one.item.dimension,
                "strata": strata_of(one.item),
                "unanswerable": sample.metadata.get("unanswerable") is True,
                "value": extraction["value"],
                "rule": extraction["rule"],
                "unparsed": extraction["value"] is None,
                "empty": not response["text"].strip(),
                "truncated": response["finish_reason"] == "length",
                "confidence": response.get("confidence"),
                **marks[place],
            }
        )
    write_rows(out / "scores.jsonl", rows)
    return rows
