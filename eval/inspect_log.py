"""A run as a log of inspect_ai (UK AI Security Institute), for its viewer: `inspect view start --log-dir FOLDER`.

Written as the JSON form of its log, version 2. Pictures are named, not embedded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medvlm.data_recipes.sample import Turn
from medvlm.eval.metric import TIERS
from medvlm.eval.plan import Ask
from medvlm.eval.rows import Row
from medvlm.eval.scorers.catalogue import METRICS


def log(
    metrics: Mapping[str, Any],
    asks: Sequence[Ask],
    responses: Mapping[str, Row],
    scores: Mapping[str, Row],
    created: str,
) -> dict[str, Any]:
    """The log of one run, of the answers with the image.

    Args:
        created: when the answers were written, ISO 8601 with a time zone.
    """
    run = metrics["run"]
    task, _, version = (run["task"] or "own-questions@0").partition("@")
    asked = [ask for ask in asks if ask.condition == "image"]
    answered = [ask for ask in asked if ask.request_id in responses and ask.request_id in scores]
    table = [
        row
        for row in metrics["table"]
        if row["condition"] == "image" and row["dimension"] == row["topic"] == "all" and row["value"] is not None
    ]
    return {
        "version": 2,
        "status": "success" if len(answered) == len(asked) else "error",
        "eval": {
            "created": created,
            "task": task,
            "task_version": version,
            "dataset": {"name": task, "samples": len(asked), "sample_ids": [_id(ask) for ask in asked]},
            "model": run["model"],
            "config": {},
            "packages": {name: text for name, text in run["versions"].items() if name != "python"},
            "metadata": {"style": run["style"], "fingerprint": run.get("fingerprint"), "ids_sha256": run["ids_sha256"]},
        },
        "results": {
            "total_samples": len(asked),
            "completed_samples": len(answered),
            "scores": [_score_of(row) for row in table],
        },
        "samples": [_sample(ask, responses[ask.request_id], scores[ask.request_id], run["model"]) for ask in answered],
    }


def _id(ask: Ask) -> str:
    return ask.item.sample.sample_id


def _score_of(row: Row) -> dict[str, Any]:
    scorer, metric = METRICS[row["metric"]]
    values = {"mean": row["value"], "ci_low": row["low"], "ci_high": row["high"]}
    return {
        "name": metric.name,
        "scorer": f"{scorer.name} (tier {scorer.tier}, {TIERS[scorer.tier]})",
        "scored_samples": row["n"],
        "unscored_samples": row["unscored"],
        "metrics": {name: {"name": name, "value": value} for name, value in values.items() if value is not None},
        "metadata": {"unparsed": row["unparsed"], "clusters": row["n_clusters"], "better": row["better"]},
    }


def _message(turn: Turn) -> dict[str, Any]:
    text = "\n".join(
        part if isinstance(part, str) else f"[{part.kind} {Path(part.path).name}]" for part in turn.content
    )
    return {"role": turn.role, "content": text}


def _sample(ask: Ask, response: Row, score: Row, model: str) -> dict[str, Any]:
    messages = [_message(turn) for turn in ask.turns]
    said = {"role": "assistant", "content": response["text"], "model": model, "source": "generate"}
    right = score.get("correct", score.get("exact_match"))
    value: str | float = "C" if right else "I"
    if right is None:
        value = next((float(score[key]) for key in ("iou", "rouge_l") if score.get(key) is not None), 0.0)
    return {
        "id": _id(ask),
        "epoch": 1,
        "input": messages,
        "choices": list(ask.question.choices) or None,
        "target": list(ask.question.answers),
        "messages": [*messages, said],
        "output": {
            "model": model,
            "choices": [
                {"message": said, "stop_reason": "max_tokens" if response["finish_reason"] == "length" else "stop"}
            ],
        },
        "scores": {
            "medvlm": {
                "value": value,
                "answer": score["value"],
                "explanation": f"read by rule {score['rule']}",
                "metadata": {"kind": score["kind"], "topic": score["topic"], "flags": score["flags"]},
            }
        },
        "metadata": {"patient": score["patient"], "strata": score["strata"]},
    }
