"""A run as lm-evaluation-harness writes its results: results.json and samples.jsonl (`lm_eval --log_samples`).

Standard errors are those that our 95 % interval would have if it were normal: half its width over 1.96.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medvlm.eval.plan import Ask
from medvlm.eval.prompts import Style
from medvlm.eval.rows import Row
from medvlm.eval.scorers.catalogue import METRICS

FILTER = "medvlm"
"""What stands after the comma of "metric,filter": lm-eval tells ways of extraction apart by it."""


def results(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The content of results.json for one run, of the answers with the image."""
    run = metrics["run"]
    name, _, version = (run["task"] or "own-questions@0").partition("@")
    row: dict[str, Any] = {"alias": run.get("title") or name}
    better: dict[str, bool] = {}
    n = 0
    for block in metrics["table"]:
        if block["condition"] != "image" or not block["dimension"] == block["topic"] == "all" or block["value"] is None:
            continue
        metric = METRICS[block["metric"]][1]
        row[f"{metric.name},{FILTER}"] = block["value"]
        known = block["low"] is not None
        row[f"{metric.name}_stderr,{FILTER}"] = (block["high"] - block["low"]) / 2 / 1.959963985 if known else "N/A"
        if metric.better != "neither":
            better[metric.name] = metric.better == "higher"
        n = max(n, block["n"])
    style: Style = run["style"]
    return {
        "results": {name: row},
        "group_subtasks": {name: []},
        "configs": {name: {"task": name, "num_fewshot": 0, "metadata": {"version": version, "style": style}}},
        "versions": {name: version},
        "n-shot": {name: 0},
        "higher_is_better": {name: better},
        "n-samples": {name: {"original": n, "effective": n}},
        "config": {"model": run["model"], "model_args": "", "limit": run["limit"], "random_seed": run["seed"]},
        "transformers_version": run["versions"]["transformers"],
        "model_name": run["model"],
    }


def samples(asks: Sequence[Ask], responses: Mapping[str, Row], scores: Mapping[str, Row]) -> list[Row]:
    """The rows of samples.jsonl: answered questions with the image, in their order."""
    found: list[Row] = []
    for ask in asks:
        if ask.condition != "image" or ask.request_id not in responses or ask.request_id not in scores:
            continue
        score = scores[ask.request_id]
        marks: dict[str, Any] = {
            key: score[key] for key in ("correct", "exact_match", "token_f1", "rouge_l", "iou") if key in score
        }
        found.append(
            {
                "doc_id": len(found),
                "doc": {
                    "id": ask.item.sample.sample_id,
                    "question": ask.prompt,
                    "choices": list(ask.question.choices),
                    "media": [str(Path(ref.path).name) for ref in ask.item.sample.visuals()],
                },
                "target": ask.question.answers[0],
                "arguments": [[ask.prompt, {"until": [], "max_gen_toks": ask.max_new_tokens, "do_sample": False}]],
                "resps": [[responses[ask.request_id]["text"]]],
                "filtered_resps": ["" if score["value"] is None else score["value"]],
                "filter": FILTER,
                "metrics": list(marks),
                "doc_hash": ask.request_id,
                **marks,
            }
        )
    return found
