"""How sure a number is: intervals that know that questions about one patient are not independent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000

Statistic = Callable[[np.ndarray], np.ndarray]
"""(B, K) sums of counts -> (B,) values, NaN where a value is not defined."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval.

    Attributes:
        value: None when there is nothing to compute it from.
        low, high: None when one patient only, or nothing, was seen.
        method: patient_bootstrap, wilson, wilson_on_patients (every answer was right, or every one wrong, where
            resampling would give an interval of width 0) or none.
    """

    value: float | None
    low: float | None
    high: float | None
    method: str


def wilson(successes: float, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
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
    patients: Sequence[str],
    statistic: Statistic = ratio,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """The statistic of all rows, with the percentile interval of a bootstrap over patients.

    Whole patients are drawn with replacement, so that ten questions about one scan count as one draw (Field and Welsh
    2007, cluster bootstrap). Counts are first summed per patient; a resample is then a multinomial weight per patient.

    Args:
        counts: (N, K) summable counts of N rows.
        patients: N names.
        statistic: of the K sums.
    """
    if len(counts) == 0:
        return Estimate(value=None, low=None, high=None, method="none")
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    sums = np.zeros((len(names), counts.shape[1]))
    np.add.at(sums, index, counts)
    value = float(statistic(sums.sum(axis=0, keepdims=True))[0])
    if not math.isfinite(value):
        return Estimate(value=None, low=None, high=None, method="none")
    if len(names) == 1:
        return Estimate(value=value, low=None, high=None, method="none")
    values = np.concatenate([statistic(drawn @ sums) for drawn in _draws(len(names), resamples, seed)])
    values = values[np.isfinite(values)]
    if not len(values):
        return Estimate(value=value, low=None, high=None, method="none")
    low, high = (float(v) for v in np.percentile(values, [2.5, 97.5]))
    return Estimate(value=value, low=low, high=high, method="patient_bootstrap")


def _draws(n_patients: int, resamples: int, seed: int, at_once: int = 250) -> Iterator[np.ndarray]:
    """How often each patient is drawn, (up to ``at_once``, P) at a time so that many patients fit into memory."""
    generator = np.random.default_rng(seed)
    equal = np.full(n_patients, 1 / n_patients)
    for first in range(0, resamples, at_once):
        yield generator.multinomial(n_patients, equal, size=min(at_once, resamples - first))


def proportion(correct: Sequence[bool | float], patients: Sequence[str], *, seed: int = 0) -> Estimate:
    """A share of right answers: Wilson's interval when every patient was asked once, else over patients."""
    hits = np.asarray(correct, dtype=float)
    if len(hits) == 0:
        return Estimate(value=None, low=None, high=None, method="none")
    value, n_patients = float(hits.mean()), len(set(patients))
    if n_patients == len(hits):
        low, high = wilson(float(hits.sum()), len(hits))
        return Estimate(value=value, low=low, high=high, method="wilson")
    if value in (0.0, 1.0):
        low, high = wilson(value * n_patients, n_patients)
        return Estimate(value=value, low=low, high=high, method="wilson_on_patients")
    return clustered(np.stack([hits, np.ones_like(hits)], axis=1), patients, ratio, seed=seed)
