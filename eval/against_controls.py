"""Whether a model looks at the image: its answers against those to the same questions under a control."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from medvlm.eval.main_metrics import ACCURACY, main_metrics, right_or_wrong
from medvlm.eval.metric import Metric
from medvlm.eval.multiple_tests import holm
from medvlm.eval.paired import compare_counts
from medvlm.eval.plan import DIMENSIONS
from medvlm.eval.rows import Row
from medvlm.eval.table import ALL, Clusters, scored

IMAGE = "image"
BLINDING = ("no_image", "swapped")
"""Conditions under which nothing that the answer is in can be seen."""

LEVEL = 0.05
_DRAWS = 1999


def by_sample(metric: Metric, rows: Sequence[Row]) -> dict[str, tuple[Row, np.ndarray]]:
    """sample_id -> (one of its rows, its mean counts): a condition may ask a sample several times."""
    kept, counts = scored(metric, rows)
    found: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(kept):
        found[row["sample_id"]].append(place)
    return {
        sample: (kept[places[0]], counts[places[0]] if len(places) == 1 else counts[places].mean(axis=0))
        for sample, places in found.items()
    }


def paired_rows(
    metric: Metric, one: Sequence[Row], other: Sequence[Row], clusters: Clusters, *, draws: int = _DRAWS
) -> Row | None:
    """``one`` against ``other`` over the samples that both answer; None when there are none.

    Returns:
        the fields of paired.Paired, where b is ``one`` and a is ``other``.
    """
    left, right = by_sample(metric, one), by_sample(metric, other)
    shared = [sample for sample in left if sample in right]
    if not shared:
        return None
    rows = [left[sample][0] for sample in shared]
    a, b = (np.array([side[sample][1] for sample in shared]) for side in (right, left))
    found = compare_counts(
        a, b, clusters.of(rows), metric.value, share=metric.share, seed=clusters.seed, resamples=metric.resamples,
        draws=draws,
    )  # fmt: skip
    return asdict(found)


def against_controls(scores: Sequence[Row], clusters: Clusters) -> list[Row]:
    """Every condition against the image itself, over the same questions.

    Returns:
        rows of condition, dimension, metric, "image", "control", "difference" (image - control) with its interval, the
        test, p, and p after Holm over the conditions of the same dimension and metric. Accuracy of closed and multiple
        choice questions together for each dimension; the main metric of every other kind over all.
    """
    conditions = [name for name in dict.fromkeys(row["condition"] for row in scores) if name != IMAGE]
    of = {name: [row for row in scores if row["condition"] == name] for name in (IMAGE, *conditions)}
    asked: list[tuple[str, Metric]] = [(dimension, ACCURACY) for dimension in (ALL, *DIMENSIONS)]
    others = main_metrics({row["kind"] for row in scores} - set(ACCURACY.kinds))
    asked += [(ALL, metric) for metric in dict.fromkeys(metric for _, metric in others)]
    found: list[Row] = []
    for dimension, metric in asked:
        rows = []
        for condition in conditions:
            pair = paired_rows(
                metric, _of(of[IMAGE], dimension, metric), _of(of[condition], dimension, metric), clusters
            )  # fmt: skip
            if pair is not None:
                pair["control"], pair["image"] = pair.pop("a"), pair.pop("b")
                pair["only_control"], pair["only_image"] = pair.pop("only_a"), pair.pop("only_b")
                rows.append({"condition": condition, "dimension": dimension, "metric": metric.name, **pair})
        tested = [row for row in rows if row["p"] is not None]
        for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
            row["p_holm"] = p
        found += rows
    return found


def _of(rows: Sequence[Row], dimension: str, metric: Metric) -> list[Row]:
    kept = right_or_wrong(rows) if metric is ACCURACY else rows
    return [row for row in kept if dimension in (ALL, row["dimension"])]


def looks_at_the_image(compared: Sequence[Row]) -> dict[str, bool | None]:
    """For each dimension, whether accuracy with the image beats both blinding controls; None when not both were asked.

    Args:
        compared: as against_controls returns it. A control is beaten when the difference is positive and its p, after
            Holm over the conditions, is below 5 %.
    """
    found: dict[str, bool | None] = {}
    for dimension in DIMENSIONS:
        rows: Mapping[str, Row] = {
            row["condition"]: row
            for row in compared
            if row["dimension"] == dimension and row["metric"] == ACCURACY.name and row["p"] is not None
        }
        if any(name not in rows for name in BLINDING):
            found[dimension] = None
            continue
        found[dimension] = all(
            rows[name]["difference"] > 0 and rows[name]["p_holm"] < LEVEL for name in BLINDING
        )  # fmt: skip
    return found
