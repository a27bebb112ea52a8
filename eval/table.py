"""The table of metrics.json: a row for each metric of each group of answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from medvlm.eval.bounds import ASKED_FORM, bounds_of
from medvlm.eval.intervals import Estimate, clustered, proportion
from medvlm.eval.metric import Each, Metric, Scorer
from medvlm.eval.resampling import cluster_index
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


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What the table needs of each of N answers, as arrays (N,)."""

    clusters: np.ndarray
    in_form: np.ndarray
    unparsed: np.ndarray
    empty: np.ndarray
    truncated: np.ndarray


def _facts(rows: Sequence[Row], clusters: Clusters) -> _Facts:
    return _Facts(
        clusters=clusters.of(rows),
        in_form=np.array([row["rule"] in ASKED_FORM for row in rows], dtype=bool),
        unparsed=np.array([row["unparsed"] for row in rows], dtype=bool),
        empty=np.array([row["empty"] for row in rows], dtype=bool),
        truncated=np.array([row["truncated"] for row in rows], dtype=bool),
    )


def table_of(rows: Sequence[Row], clusters: Clusters) -> list[Row]:
    """One row of the table per dimension, topic and metric, over the answers of one condition.

    Everything, each dimension, each topic, and each topic of each dimension; metrics that apply to none are left out.
    """
    facts = _facts(rows, clusters)
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        for dimension in (ALL, row["dimension"]):
            for topic in (ALL, row["topic"]):
                places[dimension, topic].append(place)
    dimensions, topics = ({row[key] for row in rows} for key in ("dimension", "topic"))
    members = {
        (dimension, topic): np.array(places[dimension, topic])
        for dimension in (ALL, *sorted(dimensions))
        for topic in (ALL, *sorted(topics))
        if (dimension, topic) in places
    }
    found: dict[tuple[str, str], list[Row]] = {group: [] for group in members}
    kinds = np.array([row["kind"] for row in rows])
    of_kind = {kind: kinds == kind for kind in sorted(set(kinds.tolist()))}
    added = {name for row in rows for name in row.get("added", ())}
    known: dict[tuple[object, ...], Estimate] = {}
    for scorer, metric in METRICS.values():
        masks = [mask for kind, mask in of_kind.items() if kind in metric.kinds]
        if not masks or (scorer.added and scorer.name not in added):
            continue
        asked = np.logical_or.reduce(masks)
        counted = _counted(metric, rows, asked) if isinstance(metric.counts, Each) else None
        if counted is not None and not len(counted[0]):
            continue
        marked = np.array([scorer.name in row.get("added", ()) for row in rows], dtype=bool) if scorer.added else asked
        for group, places_of in members.items():
            inside = places_of[asked[places_of]]
            if not len(inside) or not marked[inside].any():
                continue
            counts_of = counted or _counted_of(metric, rows, inside)
            block = _block(scorer, metric, inside, counts_of, facts, clusters.seed, known)
            if block is not None:
                found[group].append({"dimension": group[0], "topic": group[1], **block})
    return [block for group in found.values() for block in group]


def _counted(metric: Metric, rows: Sequence[Row], asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _counted_of(metric, rows, np.flatnonzero(asked))


def _counted_of(metric: Metric, rows: Sequence[Row], inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the places among ``inside`` that the metric has something to say of, their counts (N, K))."""
    given = metric.counts([rows[place] for place in inside])
    kept = [(place, count) for place, count in zip(inside, given, strict=True) if count is not None]
    return np.array([place for place, _ in kept], dtype=np.int64), np.array([count for _, count in kept], dtype=float)


def _block(
    scorer: Scorer,
    metric: Metric,
    inside: np.ndarray,
    counted: tuple[np.ndarray, np.ndarray],
    facts: _Facts,
    seed: int,
    known: dict[tuple[object, ...], Estimate],
) -> Row | None:
    """The row of one group; None when the metric has nothing to say of any of its answers.

    ``known``: estimates of this table so far. A kind of question with one topic is the same answers twice, and so is
    everything where there is one dimension only.
    """
    chosen = np.isin(counted[0], inside, assume_unique=True)
    places, counts = counted[0][chosen], counted[1][chosen]
    if not len(places):
        return None
    numbers = facts.clusters[places]
    same = (
        metric.share,
        metric.value,
        metric.resamples,
        metric.unit,
        counts.shape,
        counts.tobytes(),
        numbers.tobytes(),
    )
    if same not in known:
        known[same] = estimate(metric, counts, numbers, seed)
    return {
        "metric": metric.name,
        "tier": scorer.tier,
        "unit": metric.unit,
        "better": metric.better,
        **asdict(known[same]),
        **bounds_of(metric, counts, facts.in_form[places], facts.unparsed[places]),
        "n": len(places),
        "n_clusters": cluster_index(numbers)[1],
        "unscored": len(inside) - len(places),
        "unparsed": int(facts.unparsed[places].sum()),
        "empty": int(facts.empty[places].sum()),
        "truncated": int(facts.truncated[places].sum()),
    }


def look_up(table: Sequence[Row], metric: str, condition: str, dimension: str, topic: str = ALL) -> Row | None:
    """The row of the table, or None when nothing of that kind was asked."""
    wanted = (metric, condition, dimension, topic)
    return next((r for r in table if (r["metric"], r["condition"], r["dimension"], r["topic"]) == wanted), None)
