"""The table of metrics.json: a row for each metric of each group of answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from medvlm.eval.bounds import bounds_of
from medvlm.eval.intervals import Estimate, clustered, proportion
from medvlm.eval.metric import Metric, Scorer
from medvlm.eval.rows import Row
from medvlm.eval.scorers.catalogue import METRICS

ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """What is drawn again for an interval: which number each patient, or study, of a run has.

    Attributes:
        kind: "patient" or "study": the key of a row of scores.jsonl.
        number: of each name, in the order of the names.
    """

    kind: str
    number: Mapping[str, int]
    seed: int = 0

    def of(self, rows: Sequence[Row]) -> np.ndarray:
        """The numbers of the clusters that ``rows`` belong to."""
        return np.fromiter((self.number[row[self.kind]] for row in rows), dtype=np.int64, count=len(rows))


def clusters_of(rows: Sequence[Row], kind: str, seed: int = 0) -> Clusters:
    """Number the clusters of all ``rows``."""
    names = sorted({row[kind] for row in rows})
    return Clusters(kind=kind, number={name: number for number, name in enumerate(names)}, seed=seed)


def groups(rows: Sequence[Row]) -> list[tuple[str, str, list[Row]]]:
    """(dimension, topic, rows): everything, each dimension, each topic, each topic of each dimension."""
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        for dimension in (ALL, row["dimension"]):
            for topic in (ALL, row["topic"]):
                found[dimension, topic].append(row)
    dimensions = sorted({row["dimension"] for row in rows})
    topics = sorted({row["topic"] for row in rows})
    return [
        (dimension, topic, found[dimension, topic])
        for dimension in (ALL, *dimensions)
        for topic in (ALL, *topics)
        if (dimension, topic) in found
    ]


def scored(metric: Metric, rows: Sequence[Row]) -> tuple[list[Row], np.ndarray]:
    """(the rows that ``metric`` has something to say of, their counts (N, K)); rows of other kinds are left out."""
    asked = [row for row in rows if row["kind"] in metric.kinds]
    kept = [(row, count) for row, count in zip(asked, metric.counts(asked), strict=True) if count is not None]
    return [row for row, _ in kept], np.array([count for _, count in kept], dtype=float)


def estimate(metric: Metric, counts: np.ndarray, clusters: np.ndarray, seed: int) -> Estimate:
    """The value of ``metric`` with its interval."""
    if metric.share:
        return proportion(counts[:, 0], clusters, seed=seed)
    return clustered(
        counts, clusters, metric.value, seed=seed, resamples=metric.resamples, share=metric.unit == "share"
    )  # fmt: skip


def blocks(rows: Sequence[Row], clusters: Clusters) -> list[Row]:
    """One row of the table per metric that applies to ``rows``."""
    found: list[Row] = []
    for scorer, metric in METRICS.values():
        asked = sum(row["kind"] in metric.kinds for row in rows)
        if not asked or (scorer.added and not any(scorer.name in row.get("added", ()) for row in rows)):
            continue
        kept, counts = scored(metric, rows)
        if kept:
            found.append(_block(scorer, metric, asked, kept, counts, clusters))
    return found


def _block(
    scorer: Scorer, metric: Metric, asked: int, kept: Sequence[Row], counts: np.ndarray, clusters: Clusters
) -> Row:
    numbers = clusters.of(kept)
    return {
        "metric": metric.name,
        "tier": scorer.tier,
        "unit": metric.unit,
        "better": metric.better,
        **asdict(estimate(metric, counts, numbers, clusters.seed)),
        **bounds_of(metric, kept, counts),
        "n": len(kept),
        "n_clusters": len(np.unique(numbers)),
        "unscored": asked - len(kept),
        "unparsed": sum(row["unparsed"] for row in kept),
        "empty": sum(row["empty"] for row in kept),
        "truncated": sum(row["truncated"] for row in kept),
    }


def look_up(table: Sequence[Row], metric: str, condition: str, dimension: str, topic: str = ALL) -> Row | None:
    """The row of the table, or None when nothing of that kind was asked."""
    wanted = (metric, condition, dimension, topic)
    return next((r for r in table if (r["metric"], r["condition"], r["dimension"], r["topic"]) == wanted), None)
