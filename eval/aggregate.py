"""The aggregate stage: scores.jsonl -> metrics.json, every number with its n, its interval and what went unread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from medvlm.eval.intervals import Estimate, clustered, proportion
from medvlm.eval.metric import TIERS, Metric, Scorer
from medvlm.eval.plan import DIMENSIONS
from medvlm.eval.rows import Row, write_json
from medvlm.eval.scorers.catalogue import METRICS, SCORERS

ALL = "all"
CLUSTERS = ("patient", "study")
"""What is drawn again for an interval: rows of scores.jsonl say which one they belong to."""


def aggregate(
    scores: Sequence[Row],
    out: Path,
    *,
    not_asked: Mapping[str, Mapping[str, int]],
    run: Mapping[str, Any],
    cluster: str = "patient",
    seed: int = 0,
) -> dict[str, Any]:
    """Write ``out``/metrics.json and return it.

    Args:
        scores: rows of scores.jsonl.
        not_asked: condition -> reason -> number of samples, from the plan.
        run: what identifies the run (model, manifests, versions); copied.
        cluster: of CLUSTERS.
        seed: of the bootstrap.

    Returns:
        {"run", "headline", "table", "looks_at_the_image", "counts", "not_asked", "signatures"}: "table" has a row per
        condition, dimension, topic and metric ("all" for totals) with tier, value, low, high, method, n, n_clusters,
        unscored, unparsed, empty, truncated.
    """
    table: list[Row] = []
    for condition in dict.fromkeys(row["condition"] for row in scores):
        asked = [row for row in scores if row["condition"] == condition]
        for dimension, topic, rows in _groups(asked):
            table += [
                {"condition": condition, "dimension": dimension, "topic": topic, **block}
                for block in blocks(rows, cluster=cluster, seed=seed)
            ]
    metrics: dict[str, Any] = {
        "run": dict(run),
        "headline": _headline(table),
        "looks_at_the_image": {d: _looks(table, d) for d in DIMENSIONS},
        "table": table,
        "counts": _counts(scores),
        "not_asked": {name: dict(reasons) for name, reasons in not_asked.items()},
        "signatures": _signatures(scores, cluster),
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


def blocks(rows: Sequence[Row], *, cluster: str = "patient", seed: int = 0) -> list[Row]:
    """One row of the table per metric that applies to ``rows``."""
    found: list[Row] = []
    for scorer, metric in METRICS.values():
        asked = [row for row in rows if row["kind"] in metric.kinds]
        if not asked or (scorer.added and not any(scorer.name in row.get("added", ()) for row in asked)):
            continue
        counts = metric.counts(asked)
        scored = [(row, count) for row, count in zip(asked, counts, strict=True) if count is not None]
        if scored:
            estimate = _estimate(metric, scored, cluster, seed)
            found.append(_block(scorer, metric, asked, [row for row, _ in scored], estimate, cluster))
    return found


def _estimate(metric: Metric, scored: Sequence[tuple[Row, list[float]]], cluster: str, seed: int) -> Estimate:
    names = [row[cluster] for row, _ in scored]
    if metric.share:
        return proportion([count[0] for _, count in scored], names, seed=seed)
    values = np.array([count for _, count in scored], dtype=float)
    return clustered(values, names, metric.value, seed=seed, resamples=metric.resamples)


def _block(
    scorer: Scorer, metric: Metric, asked: Sequence[Row], scored: Sequence[Row], estimate: Estimate, cluster: str
) -> Row:
    return {
        "metric": metric.name,
        "tier": scorer.tier,
        "unit": metric.unit,
        "better": metric.better,
        **asdict(estimate),
        "n": len(scored),
        "n_clusters": len({row[cluster] for row in scored}),
        "unscored": len(asked) - len(scored),
        "unparsed": sum(row["unparsed"] for row in scored),
        "empty": sum(row["empty"] for row in scored),
        "truncated": sum(row["truncated"] for row in scored),
    }


def _signatures(scores: Sequence[Row], cluster: str) -> dict[str, str]:
    kinds = {row["kind"] for row in scores}
    return {
        "interval": f"95 %, percentile bootstrap over {_PLURAL[cluster]} (2000 resamples, BLEU 500; seeded); Wilson when "
        f"every {cluster} was asked once; Wilson with n = {_PLURAL[cluster]} when every answer was right or every one wrong",
        **{
            one.name: f"tier {one.tier}, {TIERS[one.tier]}. {one.implementation}"
            for one in SCORERS
            if kinds & set(one.kinds)
        },
    }


_PLURAL = {"patient": "patients", "study": "studies"}


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
        "degenerate": dict(sorted(Counter(flag for row in scores for flag in row.get("flags", ())).items())),
        "reference_findings_from": dict(sorted(sources.items())),
        "reference_kinds_not_scored": dict(sorted(unknown.items())),
    }
