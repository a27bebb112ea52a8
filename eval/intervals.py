"""How sure a number is: intervals that know that questions about one patient are not independent."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from medvlm.eval.bca import bca_bounds
from medvlm.eval.resampling import RESAMPLES, cluster_index, cluster_sums, resampled

FEW_CLUSTERS = 10
"""Below so many clusters no interval is to be trusted; the method says so."""

RARE = 5
"""Where fewer clusters hold the rarer answer (right or wrong), the bootstrap of a share is widened, see proportion."""

Statistic = Callable[[np.ndarray], np.ndarray]
"""(B, K) sums of counts -> (B,) values, NaN where a value is not defined."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval.

    Attributes:
        value: None when there is nothing to compute it from.
        low, high: None when one cluster only, or nothing, was seen, or nothing varies.
        method: how the interval was made:

            - cluster_bootstrap: BCa over clusters.
            - cluster_bootstrap_rare: of a share, widened to hold Wilson's interval with n = clusters, because the rarer
              answer occurs in fewer than RARE clusters.
            - wilson: of a share, every cluster was asked once.
            - wilson_on_clusters: with n = clusters, because every answer was right or every one wrong, where a
              bootstrap would give an interval of width 0.
            - no_variation: every resample gives the same value; there is no interval.
            - none: nothing to compute, or one cluster only.

            "_few" ends the name of a bootstrap over fewer than FEW_CLUSTERS clusters: do not trust its interval.
    """

    value: float | None
    low: float | None
    high: float | None
    method: str


NOTHING = Estimate(value=None, low=None, high=None, method="none")


def wilson(successes: float, n: float, z: float = 1.959963984540054) -> tuple[float, float]:
    """The score interval of a proportion of independent trials (Wilson 1927)."""
    if n <= 0:
        raise ValueError(f"a proportion needs at least one trial, got n={n}")
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def ratio(sums: np.ndarray) -> np.ndarray:
    """sums (B, 2) -> first over second: a mean or a proportion."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sums[:, 1] > 0, sums[:, 0] / sums[:, 1], np.nan)


def micro_f1(sums: np.ndarray) -> np.ndarray:
    """sums (B, 3) of hits, false positives, misses -> F1; NaN where nothing was there to find or to invent."""
    total = 2 * sums[:, 0] + sums[:, 1] + sums[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > 0, 2 * sums[:, 0] / total, np.nan)


def clustered(
    counts: np.ndarray,
    clusters: Sequence[str] | np.ndarray,
    statistic: Statistic = ratio,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    share: bool = False,
) -> Estimate:
    """The statistic of all rows, with the BCa interval of a bootstrap over clusters.

    Whole clusters are drawn with replacement, so that ten questions about one scan count as one draw (Field and Welsh
    2007, cluster bootstrap; how they are drawn: resampling.py). The interval is bias-corrected and accelerated (Efron
    1987): in simulations of shares near 0 or 1 the plain percentile interval covers 85 % where this one covers 91 %
    (docs/statistics.md).

    Args:
        counts: (N, K) summable counts of N rows.
        clusters: N names, or numbers.
        statistic: of the K sums.
        share: the statistic lies between 0 and 1.
    """
    if len(counts) == 0:
        return NOTHING
    sums = cluster_sums(counts, cluster_index(clusters)[0])
    value = float(statistic(np.asarray(counts, dtype=np.float64).sum(axis=0)[None])[0])
    if not math.isfinite(value):
        return NOTHING
    if len(sums) == 1:
        return Estimate(value=value, low=None, high=None, method="none")
    bounds = _bounds(sums, statistic, seed, resamples)
    if bounds is not None:
        return _estimate(value, bounds, "cluster_bootstrap", len(sums))
    if share and value in (0.0, 1.0):
        return _estimate(value, wilson(value * len(sums), len(sums)), "wilson_on_clusters", len(sums))
    return Estimate(value=value, low=None, high=None, method="no_variation")


def _estimate(value: float, bounds: tuple[float, float], method: str, n_clusters: int) -> Estimate:
    few = "_few" if n_clusters < FEW_CLUSTERS and not method.startswith("wilson") else ""
    return Estimate(value=value, low=bounds[0], high=bounds[1], method=method + few)


def _bounds(sums: np.ndarray, statistic: Statistic, seed: int, resamples: int) -> tuple[float, float] | None:
    """The BCa bounds, or None when the resamples do not vary."""
    values = statistic(resampled(sums, seed=seed, resamples=resamples))
    total = sums.sum(axis=0, keepdims=True)
    low, high = bca_bounds(values[:, None], statistic(total), statistic(total - sums)[:, None])
    return (float(low[0]), float(high[0])) if np.isfinite(low[0]) else None


def proportion(
    correct: Sequence[bool | float] | np.ndarray, clusters: Sequence[str] | np.ndarray, *, seed: int = 0
) -> Estimate:
    """A share of right answers: Wilson's interval when every cluster was asked once, else over clusters.

    Where the rarer answer occurs in fewer than RARE clusters, resamples say little about how rare it is; the interval
    is then widened to hold Wilson's with n = clusters, the widest that perfectly dependent answers could need.
    """
    hits = np.asarray(correct, dtype=float)
    if len(hits) == 0:
        return NOTHING
    index, n_clusters = cluster_index(clusters)
    value = float(hits.mean())
    if n_clusters == len(hits):
        return _estimate(value, wilson(float(hits.sum()), len(hits)), "wilson", n_clusters)
    counts = np.stack([hits, np.ones_like(hits)], axis=1)
    found = clustered(counts, index, ratio, seed=seed, share=True)
    if found.low is None or found.high is None or not found.method.startswith("cluster_bootstrap"):
        return found
    right, wrong = (np.bincount(index, weights=marks) > 0 for marks in (hits, 1 - hits))
    if min(int(right.sum()), int(wrong.sum())) >= RARE:
        return found
    low, high = wilson(value * n_clusters, n_clusters)
    return _estimate(value, (min(low, found.low), max(high, found.high)), "cluster_bootstrap_rare", n_clusters)
