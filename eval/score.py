"""The score stage: one row per response with all that aggregation needs, as counts that add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from medvlm.eval.controls import patient_of
from medvlm.eval.extract import options
from medvlm.eval.plan import Item
from medvlm.eval.rows import Row, write_rows
from medvlm.eval.scorers.choice import accepted, is_correct
from medvlm.eval.scorers.findings import count_findings
from medvlm.eval.scorers.grounding import score_box
from medvlm.eval.scorers.report_text import bleu_statistics, rouge_l, without_labels
from medvlm.eval.scorers.short_answer import exact_match, token_f1


def score_one(item: Item, value: str | None) -> Row:
    """The scores of one extracted answer; what could not be read scores as an empty answer, never as missing."""
    question, text = item.question, value or ""
    if question.kind in ("closed", "choice"):
        references = accepted(question, item.prompt)
        return {
            "correct": is_correct(question, value, item.prompt),
            "choices": list(options(question, item.prompt)),
            "reference": sorted(references)[0],
        }
    if question.kind == "open":
        return {
            "exact_match": exact_match(text, question.answers),
            "token_f1": token_f1(text, question.answers),
            "words": len(text.split()),
            "reference": question.answers[0],
        }
    if question.kind == "box":
        return {**asdict(score_box(question, value)), "reference": question.answers[0]}
    answer, references_text = without_labels(text), [without_labels(a) for a in question.answers]
    return {
        "bleu": bleu_statistics(answer, references_text),
        "rouge_l": rouge_l(answer, references_text),
        "findings": asdict(count_findings(question, text)),
        "words": len(text.split()),
        "reference": question.answers[0],
    }


def score_rows(responses: Sequence[Row], extractions: Sequence[Row], items: Mapping[str, Item], out: Path) -> list[Row]:
    """Write ``out``/scores.jsonl, replaced whole.

    Args:
        responses, extractions: rows of the two stages before, about the same requests.
        items: sample_id -> item.

    Raises:
        ValueError: a response has no extraction.
    """
    extracted = {row["request_id"]: row for row in extractions}
    rows: list[Row] = []
    for response in responses:
        if response["request_id"] not in extracted:
            raise ValueError(f"request {response['request_id']} has no row in extractions.jsonl; run extract again")
        extraction, item = extracted[response["request_id"]], items[response["sample_id"]]
        rows.append(
            {
                "request_id": response["request_id"],
                "sample_id": response["sample_id"],
                "patient": patient_of(item.sample),
                "condition": response["condition"],
                "kind": item.question.kind,
                "topic": item.question.topic,
                "dimension": item.dimension,
                "value": extraction["value"],
                "rule": extraction["rule"],
                "unparsed": extraction["value"] is None,
                "empty": not response["text"].strip(),
                "truncated": response["finish_reason"] == "length",
                **score_one(item, extraction["value"]),
            }
        )
    write_rows(out / "scores.jsonl", rows)
    return rows
