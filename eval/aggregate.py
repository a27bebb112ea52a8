"""The aggregate stage: scores.jsonl -> metrics.json, every number with its n, its interval and what went unread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from medvlm.eval.intervals import RESAMPLES, Estimate, clustered, micro_f1, proportion, ratio
from medvlm.eval.plan import DIMENSIONS
from medvlm.eval.rows import Row, write_json
from medvlm.eval.scorers.choice import majority_hits
from medvlm.eval.scorers.report_text import BLEU_SIGNATURE, MAX_ORDER, ROUGE_SIGNATURE, bleu_of

ALL = "all"
BLEU_RESAMPLES = 500


def _bleu(order: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda sums: np.array([bleu_of(row, order) for row in sums])


def _findings(*keys: str) -> Callable[[Row], list[float]]:
    return lambda row: [float(row["findings"][key]) for key in keys]


_METRICS: tuple[
    tuple[str, tuple[str, ...], Callable[[Row], list[float] | None], Callable[[np.ndarray], np.ndarray]], ...
] = (
    ("open_token_f1", ("open",), lambda row: [row["token_f1"], 1.0], ratio),
    ("finding_f1", ("report",), _findings("hits", "invented", "missed"), micro_f1),
    ("finding_precision", ("report",), lambda r: _with_total(_findings("hits", "invented")(r)), ratio),
    ("finding_recall", ("report",), lambda r: _with_total(_findings("hits", "missed")(r)), ratio),
    ("negation_accuracy", ("report",), _findings("negations_kept", "negations"), ratio),
    ("rouge_l", ("report",), lambda row: [row["rouge_l"], 1.0], ratio),
    *(
        (f"bleu_{n}", ("report",), lambda row: [float(v) for v in row["bleu"]], _bleu(n))
        for n in range(1, MAX_ORDER + 1)
    ),
    ("box_iou", ("box",), lambda row: [row["iou"], 1.0], ratio),
    ("box_centre_mm", ("box",), lambda row: None if row["centre_mm"] is None else [row["centre_mm"], 1.0], ratio),
    ("mean_words", ("open", "report"), lambda row: [float(row["words"]), 1.0], ratio),
)
"""(name, kinds of question, row -> summable counts or None where it has none, sums -> value)."""

_BOX_ACCURACIES = {"box_accuracy_25": 0.25, "box_accuracy_50": 0.5}
"""Least intersection over union of a box that counts as right; 1e-9 for rounding is given."""


def _with_total(pair: list[float]) -> list[float]:
    return [pair[0], pair[0] + pair[1]]


def aggregate(
    scores: Sequence[Row], out: Path, *, not_asked: dict[str, dict[str, int]], run: dict[str, Any], seed: int = 0
) -> dict[str, Any]:
    """Write ``out``/metrics.json and return it.

    Args:
        scores: rows of scores.jsonl.
        not_asked: condition -> reason -> number of samples, from the plan.
        run: what identifies the run (model, manifests, versions); copied.
        seed: of the bootstrap.

    Returns:
        {"run", "headline", "table", "looks_at_the_image", "counts", "not_asked", "signatures"}: "table" has a row per
        condition, dimension, topic and metric ("all" for totals) with value, low, high, method, n, n_patients,
        unparsed, empty, truncated.
    """
    table: list[Row] = []
    for condition in dict.fromkeys(row["condition"] for row in scores):
        asked = [row for row in scores if row["condition"] == condition]
        for dimension, topic, rows in _groups(asked):
            table += [
                {"condition": condition, "dimension": dimension, "topic": topic, **block}
                for block in _blocks(rows, seed)
            ]
    metrics: dict[str, Any] = {
        "run": run,
        "headline": _headline(table),
        "looks_at_the_image": {d: _looks(table, d) for d in DIMENSIONS},
        "table": table,
        "counts": _counts(scores),
        "not_asked": not_asked,
        "signatures": {
            "interval": "95 %, percentile bootstrap over patients (2000 resamples, BLEU 500; seeded); Wilson when "
            "every patient was asked once; Wilson with n = patients when every answer was right or every one wrong",
            "bleu": BLEU_SIGNATURE,
            "rouge_l": ROUGE_SIGNATURE,
            "boxes": "intersection over union of areas or volumes, over all questions: an unread answer counts 0; "
            "the distance of centres is over the boxes that were read and whose field of view is known in millimetres",
            "findings": "rule labeller of this package; a positive counts when kind and side agree; micro over reports",
        },
    }
    write_json(out / "metrics.json", metrics)
    return metrics


def _groups(rows: Sequence[Row]) -> list[tuple[str, str, list[Row]]]:
    """(dimension, topic, rows): everything, each dimension, each topic, each topic of each dimension."""
    dimensions = sorted({row["dimension"] for row in rows})
    topics = sorted({row["topic"] for row in rows})
    found: list[tuple[str, str, list[Row]]] = []
    for dimension in (ALL, *dimensions):
        for topic in (ALL, *topics):
            members = [row for row in rows if dimension in (ALL, row["dimension"]) and topic in (ALL, row["topic"])]
            if members:
                found.append((dimension, topic, members))
    return found


def _blocks(rows: Sequence[Row], seed: int) -> list[Row]:
    """One row of the table per metric that applies to ``rows``."""
    blocks: list[Row] = []
    for kind, metric, majority in (
        ("closed", "closed_accuracy", "majority_accuracy"),
        ("choice", "choice_accuracy", "choice_majority_accuracy"),
    ):
        asked = [row for row in rows if row["kind"] == kind]
        if asked:
            patients = [row["patient"] for row in asked]
            accuracy = proportion([row["correct"] for row in asked], patients, seed=seed)
            blocks.append(_block(metric, asked, accuracy))
            blocks.append(_block(majority, asked, proportion(_majority(asked), patients, seed=seed)))
    opened = [row for row in rows if row["kind"] == "open"]
    if opened:
        exact = proportion([row["exact_match"] for row in opened], [row["patient"] for row in opened], seed=seed)
        blocks.append(_block("open_exact_match", opened, exact))
    boxes = [row for row in rows if row["kind"] == "box"]
    for name, least in _BOX_ACCURACIES.items() if boxes else ():
        hits = [row["iou"] >= least - 1e-9 for row in boxes]
        blocks.append(_block(name, boxes, proportion(hits, [row["patient"] for row in boxes], seed=seed)))
    for name, kinds, counts, statistic in _METRICS:
        counted = [(row, sums) for row in rows if row["kind"] in kinds and (sums := counts(row)) is not None]
        members = [row for row, _ in counted]
        if members:
            values = np.array([sums for _, sums in counted], dtype=float)
            # Corpus BLEU is computed resample by resample, some 30 microseconds each.
            resamples = BLEU_RESAMPLES if name.startswith("bleu") else RESAMPLES
            patients = [row["patient"] for row in members]
            estimate = clustered(values, patients, statistic, seed=seed, resamples=resamples)
            blocks.append(_block(name, members, estimate))
    return blocks


def _majority(rows: Sequence[Row]) -> list[bool]:
    """Hits of the best constants, learnt within each dimension and then pooled."""
    hits = dict.fromkeys(range(len(rows)), False)
    for dimension in {row["dimension"] for row in rows}:
        members = [index for index, row in enumerate(rows) if row["dimension"] == dimension]
        asked = [(rows[i]["topic"], tuple(rows[i]["choices"]), rows[i]["reference"]) for i in members]
        hits |= dict(zip(members, majority_hits(asked), strict=True))
    return [hits[index] for index in range(len(rows))]


def _block(metric: str, rows: Sequence[Row], estimate: Estimate) -> Row:
    return {
        "metric": metric,
        **asdict(estimate),
        "n": len(rows),
        "n_patients": len({row["patient"] for row in rows}),
        "unparsed": sum(row["unparsed"] for row in rows),
        "empty": sum(row["empty"] for row in rows),
        "truncated": sum(row["truncated"] for row in rows),
    }


def look_up(table: Sequence[Row], metric: str, condition: str, dimension: str, topic: str = ALL) -> Row | None:
    """The row of the table, or None when nothing of that kind was asked."""
    wanted = (metric, condition, dimension, topic)
    return next((r for r in table if (r["metric"], r["condition"], r["dimension"], r["topic"]) == wanted), None)


def _headline(table: Sequence[Row]) -> dict[str, float | None]:
    """Flat numbers; None for what was not asked."""

    def value(metric: str, condition: str = "image", dimension: str = ALL, topic: str = ALL) -> float | None:
        row = look_up(table, metric, condition, dimension, topic)
        return None if row is None else row["value"]

    headline: dict[str, float | None] = {
        f"closed_accuracy_{d}": value("closed_accuracy", dimension=d) for d in DIMENSIONS
    }
    headline |= {f"side_accuracy_{d}": value("closed_accuracy", dimension=d, topic="side") for d in ("2d", "3d")}
    for suffix, dimension in (("", ALL), *((f"_{d}", d) for d in DIMENSIONS)):
        headline[f"majority_accuracy{suffix}"] = value("majority_accuracy", dimension=dimension)
        headline[f"no_image_accuracy{suffix}"] = value("closed_accuracy", "no_image", dimension)
        headline[f"swapped_image_accuracy{suffix}"] = value("closed_accuracy", "swapped", dimension)
        headline[f"choice_accuracy{suffix}"] = value("choice_accuracy", dimension=dimension)
        headline[f"finding_f1{suffix}"] = value("finding_f1", dimension=dimension)
        headline[f"box_iou{suffix}"] = value("box_iou", dimension=dimension)
    for metric in ("open_exact_match", "open_token_f1", "negation_accuracy", "bleu_4", "rouge_l"):
        headline[metric] = value(metric)
    return headline


def _looks(table: Sequence[Row], dimension: str) -> bool | None:
    """Whether accuracy with the image lies above both controls, interval against interval; None when not all asked."""
    rows = [look_up(table, "closed_accuracy", c, dimension) for c in ("image", "no_image", "swapped")]
    if any(row is None or row["low"] is None for row in rows):
        return None
    image, *controls = [row for row in rows if row is not None]
    return all(image["low"] > control["high"] for control in controls)


def _counts(scores: Sequence[Row]) -> dict[str, Any]:
    unknown = Counter(k for row in scores if row["kind"] == "report" for k in row["findings"]["unknown_kinds"])
    sources = Counter(row["findings"]["reference"] for row in scores if row["kind"] == "report")
    return {
        "responses": len(scores),
        "unparsed": sum(row["unparsed"] for row in scores),
        "empty": sum(row["empty"] for row in scores),
        "truncated": sum(row["truncated"] for row in scores),
        "extraction_rules": dict(sorted(Counter(row["rule"] for row in scores).items())),
        "reference_findings_from": dict(sorted(sources.items())),
        "reference_kinds_not_scored": dict(sorted(unknown.items())),
    }
