"""Groups in which a model does worse than elsewhere, where there are enough of them to say so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from medvlm.eval.intervals import FEW_CLUSTERS, Statistic, clustered
from medvlm.eval.main_metrics import main_metrics
from medvlm.eval.metric import Metric
from medvlm.eval.resampling import cluster_index
from medvlm.eval.rows import Row
from medvlm.eval.table import Clusters, estimate, scored

MINIMUM = 30
"""Fewest questions of a group whose value is shown: below it an interval is wider than any gap that matters."""

EXTREMES = 5


def subgroups(rows: Sequence[Row], clusters: Clusters) -> dict[str, Any]:
    """Every stratum's groups against the rest.

    Args:
        rows: of one condition.

    Returns:
        {"minimum", "comparisons", "expected_by_chance", "excluding_zero", "strata", "extremes"}: "strata" has an entry
        per stratum and main metric, see _stratum; "comparisons" is how many gaps have an interval, of which
        "expected_by_chance" would exclude zero if no group differed, and "excluding_zero" do; "extremes" lists the
        hardest and easiest cells of topic and group.
    """
    strata: list[Row] = []
    extremes: list[Row] = []
    for kind, metric in main_metrics(row["kind"] for row in rows):
        kept, counts = scored(metric, [row for row in rows if row["kind"] == kind])
        if not kept:
            continue
        numbers = clusters.of(kept)
        for stratum in sorted({name for row in kept for name in row.get("strata", ())}):
            found = _stratum(stratum, metric, kept, counts, numbers, clusters.seed)
            if found is not None:
                strata.append({"kind": kind, **found})
        extremes += _extremes(kind, metric, kept, counts, numbers, clusters.seed)
    gaps = [group for one in strata for group in one["groups"] if group["gap_low"] is not None]
    outside = sum(group["gap_low"] > 0 or group["gap_high"] < 0 for group in gaps)
    return {
        "minimum": MINIMUM,
        "comparisons": len(gaps),
        "expected_by_chance": round(0.05 * len(gaps), 2),
        "excluding_zero": outside,
        "strata": strata,
        "extremes": extremes,
    }


def _stratum(
    stratum: str, metric: Metric, rows: Sequence[Row], counts: np.ndarray, numbers: np.ndarray, seed: int
) -> Row | None:
    """The groups of one stratum; None when only one group is known, which has no rest.

    Returns:
        {"stratum", "metric", "unit", "better", "groups", "small", "unknown", "worst"}: a group has n, n_clusters, value
        with interval, and its gap to all other known groups together, with interval; "small" says how many questions
        the groups have that are not shown, "unknown" how many questions name no group.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        if stratum in row["strata"]:
            members[row["strata"][stratum]].append(place)
    if len(members) < 2:
        return None
    known = np.array(sorted(place for places in members.values() for place in places))
    groups: list[Row] = []
    for name in sorted(members):
        places = np.array(members[name])
        if len(places) < MINIMUM:
            continue
        own = estimate(metric, counts[places], numbers[places], seed)
        inside = np.zeros(len(counts), dtype=bool)
        inside[places] = True
        groups.append(
            {
                "group": name,
                **asdict(own),
                "n": len(places),
                "n_clusters": cluster_index(numbers[places])[1],
                **_gap(metric, counts[known], inside[known], numbers[known], seed),
            }
        )
    shown = [group for group in groups if group["value"] is not None]
    worst = (max if metric.better == "lower" else min)(shown, key=lambda group: group["value"], default=None)
    return {
        "stratum": stratum,
        "metric": metric.name,
        "unit": metric.unit,
        "better": metric.better,
        "groups": groups,
        "small": {name: len(places) for name, places in sorted(members.items()) if len(places) < MINIMUM},
        "unknown": len(rows) - len(known),
        "worst": worst["group"] if worst is not None and len(shown) > 1 else None,
    }


def _gap(metric: Metric, counts: np.ndarray, inside: np.ndarray, numbers: np.ndarray, seed: int) -> Row:
    """The value of the group minus that of the rest; patients who have questions in both are drawn for both."""
    rest = int((~inside).sum())
    if rest < MINIMUM:
        return {"gap": None, "gap_low": None, "gap_high": None, "rest_n": rest}
    both = np.concatenate([counts * inside[:, None], counts * ~inside[:, None]], axis=1)
    found = clustered(both, numbers, _difference(metric.value, counts.shape[1]), seed=seed, resamples=metric.resamples)
    # A gap is no more to be trusted than the side with fewer clusters.
    few = min(cluster_index(numbers[side])[1] for side in (inside, ~inside)) < FEW_CLUSTERS
    return {
        "gap": found.value,
        "gap_low": None if few else found.low,
        "gap_high": None if few else found.high,
        "rest_n": rest,
    }


def _difference(statistic: Statistic, width: int) -> Statistic:
    return lambda sums: statistic(sums[:, :width]) - statistic(sums[:, width:])


def _extremes(
    kind: str, metric: Metric, rows: Sequence[Row], counts: np.ndarray, numbers: np.ndarray, seed: int
) -> list[Row]:
    """The hardest and the easiest cells of topic and group with enough questions; none below two cells."""
    members: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        for stratum, group in row.get("strata", {}).items():
            members[row["topic"], stratum, group].append(place)
    valued: list[tuple[float, tuple[str, str, str]]] = []
    for cell, places in members.items():
        value = float(metric.value(counts[places].sum(axis=0)[None])[0]) if len(places) >= MINIMUM else float("nan")
        if np.isfinite(value):
            valued.append((-value if metric.better == "lower" else value, cell))
    if len(valued) < 2:
        return []
    valued.sort()
    take = min(EXTREMES, len(valued) // 2)
    chosen = [("hardest", cell) for _, cell in valued[:take]] + [("easiest", cell) for _, cell in valued[::-1][:take]]
    found: list[Row] = []
    for which, (topic, stratum, group) in chosen:
        places = members[topic, stratum, group]
        found.append(
            {
                "which": which,
                "kind": kind,
                "metric": metric.name,
                "topic": topic,
                "stratum": stratum,
                "group": group,
                **asdict(estimate(metric, counts[places], numbers[places], seed)),
                "n": len(places),
                "n_clusters": cluster_index(numbers[places])[1],
            }
        )
    return found
