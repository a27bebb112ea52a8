"""Two sets of answers to the same questions: their difference, its interval, and whether it could be chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medvlm.eval.bca import bca_bounds
from medvlm.eval.intervals import FEW_CLUSTERS, Statistic, ratio, wilson
from medvlm.eval.resampling import RESAMPLES, cluster_index, cluster_sums, resampled

DRAWS = 9999
"""Of a randomisation test; with the observed one, the least p is 1 / 10,000."""

POWER_FACTOR = 1.959963984540054 + 0.8416212335729143
"""Normal quantiles of 97.5 % and 80 %: a true difference of so many standard errors is found in 80 % of repetitions."""

_SAME = 1e-9


@dataclass(frozen=True, kw_only=True)
class Paired:
    """``b`` against ``a`` over the same questions.

    Attributes:
        difference: b - a.
        low, high: its 95 % interval (BCa over clusters). Of a share where no answer differs: Wilson's bound of no
            difference in as many clusters. None where nothing can be said.
        test: mcnemar (exact), randomisation (of whole clusters), exact_randomisation (all of the few possible swaps),
            none (one cluster only, or nothing to compare).
        p: two-sided; None without a test.
        only_a, only_b: of a mark that is right or wrong: questions that only one of them has right; else None.
        p_mcnemar: of such a mark, exact, as if questions were independent; what ``p`` is where each cluster was asked
            once, and too small where answers about one patient agree.
        detectable: the least true difference that would be found in 80 % of repetitions with so many questions and
            clusters, at the 5 % level of one test; None where no answer differs.
        few_clusters: fewer than intervals.FEW_CLUSTERS: the interval is not to be trusted.
    """

    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    test: str
    p: float | None
    n: int
    n_clusters: int
    only_a: int | None = None
    only_b: int | None = None
    p_mcnemar: float | None = None
    detectable: float | None = None
    few_clusters: bool = False


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact two-sided p of McNemar's test (1947): a binomial test of the discordant pairs against one half."""
    if only_a < 0 or only_b < 0:
        raise ValueError(f"counts of discordant pairs are not negative, got {only_a} and {only_b}")
    total, fewer = only_a + only_b, min(only_a, only_b)
    if only_a == only_b:
        return 1.0
    log_choices = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) - total * math.log(2)
        for k in range(fewer + 1)
    ]
    largest = max(log_choices)
    return min(1.0, 2 * math.exp(largest) * math.fsum(math.exp(one - largest) for one in log_choices))


def compare_counts(
    a: np.ndarray,
    b: np.ndarray,
    clusters: Sequence[str] | np.ndarray,
    statistic: Statistic = ratio,
    *,
    share: bool = False,
    seed: int = 0,
    resamples: int = RESAMPLES,
    draws: int = DRAWS,
) -> Paired:
    """Compare two sets of marks of the same questions.

    Args:
        a, b: (N, K) summable counts of the same N questions.
        clusters: N names, or numbers: the patients or studies that the questions are about.
        statistic: of the K sums.
        share: counts are (hit, 1): right or wrong, or the share of right answers of several requests of a question.
        draws: of the randomisation test.

    Raises:
        ValueError: not as many of the one as of the other.
    """
    if a.shape != b.shape or len(a) != len(clusters):
        raise ValueError(f"{a.shape} and {b.shape} counts of {len(clusters)} questions cannot be paired")
    n = len(a)
    if n == 0:
        return Paired(a=None, b=None, difference=None, low=None, high=None, test="none", p=None, n=0, n_clusters=0)
    width = a.shape[1]
    sums = cluster_sums(np.concatenate([a, b], axis=1), cluster_index(clusters)[0])

    def difference(of: np.ndarray) -> np.ndarray:
        return statistic(of[:, width:]) - statistic(of[:, :width])

    total = sums.sum(axis=0, keepdims=True)
    value_a, value_b = float(statistic(total[:, :width])[0]), float(statistic(total[:, width:])[0])
    if not (math.isfinite(value_a) and math.isfinite(value_b)) or len(sums) == 1:
        known_a, known_b = (v if math.isfinite(v) else None for v in (value_a, value_b))
        both = None if known_a is None or known_b is None else known_b - known_a
        return Paired(
            a=known_a, b=known_b, difference=both, low=None, high=None, test="none", p=None, n=n, n_clusters=len(sums)
        )  # fmt: skip
    drawn = difference(resampled(sums, seed=seed, resamples=resamples))
    left_out = difference(total - sums)
    low, high = bca_bounds(drawn[:, None], difference(total), left_out[:, None])
    bounds: tuple[float | None, float | None] = (float(low[0]), float(high[0])) if np.isfinite(low[0]) else (None, None)
    error = float(np.nanstd(drawn))
    swapped_p, test = _randomisation(sums, width, difference, seed, draws)
    binary = share and bool(np.isin(a[:, 0], (0.0, 1.0)).all() and np.isin(b[:, 0], (0.0, 1.0)).all())
    only_a = int(np.sum(a[:, 0] > b[:, 0])) if binary else None
    only_b = int(np.sum(b[:, 0] > a[:, 0])) if binary else None
    p_mcnemar = mcnemar(only_a, only_b) if only_a is not None and only_b is not None else None
    p = swapped_p
    if p_mcnemar is not None and len(sums) == n:
        p, test = p_mcnemar, "mcnemar"
    if bounds[0] is None and share and value_a == value_b:
        most = wilson(0, len(sums))[1]
        bounds = (-most, most)
    return Paired(
        a=value_a,
        b=value_b,
        difference=value_b - value_a,
        low=bounds[0],
        high=bounds[1],
        test=test,
        p=p,
        n=n,
        n_clusters=len(sums),
        only_a=only_a,
        only_b=only_b,
        p_mcnemar=p_mcnemar,
        detectable=POWER_FACTOR * error if error > _SAME else None,
        few_clusters=len(sums) < FEW_CLUSTERS,
    )


def _randomisation(sums: np.ndarray, width: int, difference: Statistic, seed: int, draws: int) -> tuple[float, str]:
    """The share of swaps of a and b, cluster by cluster, that differ as much as what was seen (Noreen 1989).

    Under the null hypothesis it is chance which of the two sets of answers about a patient is called a. Clusters whose
    counts are the same in both are left alone: swapping them changes nothing. Where so few others are left that all of
    their swaps are no more than ``draws``, all are tried and p is exact.
    """
    change = sums[:, width:] - sums[:, :width]
    change = change[np.any(np.abs(change) > _SAME, axis=1)]
    fixed = sums.sum(axis=0)
    step = np.concatenate([change, -change], axis=1)  # what swapping one cluster adds to the sums of (a, b)
    observed = abs(float(difference(fixed[None])[0]))
    least = observed - _SAME * max(1.0, observed)
    if 2 ** len(step) <= draws:
        every = np.arange(2 ** len(step))
        swaps = (every[:, None] >> np.arange(len(step))[None, :]) & 1
        return _as_large(fixed + swaps.astype(np.float64) @ step, difference, least) / len(every), "exact_randomisation"
    generator = np.random.default_rng([seed, 1])
    found, at_once = 0, max(1, 20_000_000 // len(step))
    for first in range(0, draws, at_once):
        flips = generator.integers(0, 2, size=(min(at_once, draws - first), len(step)), dtype=np.uint8)
        found += _as_large(fixed + flips.astype(np.float64) @ step, difference, least)
    return (found + 1) / (draws + 1), "randomisation"


def _as_large(sums: np.ndarray, difference: Statistic, least: float) -> int:
    # A swap under which the statistic is not defined counts as large: it can only make p larger.
    with np.errstate(invalid="ignore"):
        return int(np.sum(~(np.abs(difference(sums)) < least)))
