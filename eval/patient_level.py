"""Patients instead of questions: a patient with forty questions counts as much as one with a single one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from medvlm.eval.intervals import Estimate, clustered, proportion
from medvlm.eval.main_metrics import ACCURACY, main_metrics, right_or_wrong
from medvlm.eval.resampling import cluster_index
from medvlm.eval.rows import Row
from medvlm.eval.table import Clusters, estimate, scored


def patient_level(rows: Sequence[Row], clusters: Clusters) -> dict[str, Any] | None:
    """What one patient, or study, may expect.

    Args:
        rows: of one condition.

    Returns:
        {"cluster", "n", "questions", "all_right", "majority_right", "mean"}, or None when nothing is right or wrong:
        how many clusters; the least, median and most questions of one; the share of clusters of which all answers are
        right, and of which more than half are; and for each kind of question the mean over clusters of the value within
        each, all with intervals.
    """
    kept, counts = scored(ACCURACY, right_or_wrong(rows))
    means = _means(rows, clusters)
    if not kept and not means:
        return None
    found: dict[str, Any] = {"cluster": clusters.kind, "all_right": None, "majority_right": None}
    every = np.unique(clusters.of(rows), return_counts=True)[1]
    found["n"] = len(every)
    found["questions"] = {"least": int(every.min()), "median": float(np.median(every)), "most": int(every.max())}
    if kept:
        index, _ = cluster_index(clusters.of(kept))
        asked, right = np.bincount(index), np.bincount(index, weights=counts[:, 0])
        names = np.arange(len(asked))
        found["all_right"] = _with_n(proportion((right == asked).astype(float), names), len(asked))
        found["majority_right"] = _with_n(proportion((2 * right > asked).astype(float), names), len(asked))
    return found | {"mean": means}


def _means(rows: Sequence[Row], clusters: Clusters) -> dict[str, Row]:
    """Metric -> the mean over clusters of its value within each."""
    found: dict[str, Row] = {}
    for metric in dict.fromkeys(metric for _, metric in main_metrics(row["kind"] for row in rows)):
        kept, counts = scored(metric, rows)
        if not kept:
            continue
        index, _ = cluster_index(clusters.of(kept))
        sums = np.stack([np.bincount(index, weights=counts[:, k]) for k in range(counts.shape[1])], axis=1)
        within = metric.value(sums)
        known = np.isfinite(within)
        if not known.any():
            continue
        pairs = np.stack([within[known], np.ones(int(known.sum()))], axis=1)
        mean = clustered(pairs, np.arange(len(pairs)), seed=clusters.seed, share=metric.unit == "share")
        over_questions = estimate(metric, counts, index, clusters.seed).value
        found[metric.name] = _with_n(mean, len(pairs)) | {"over_questions": over_questions}
    return found


def _with_n(value: Estimate, n: int) -> Row:
    return asdict(value) | {"n": n}
