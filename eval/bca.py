"""Bias-corrected and accelerated bounds of a bootstrap, of many numbers at once (Efron 1987)."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

_NORMAL = NormalDist()
_Z = 1.959963984540054
_SAME = 1e-9
"""Counts are rounded before they are drawn again, so what is the same may come out a hair apart."""


def bca_bounds(values: np.ndarray, value: np.ndarray, left_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % bounds of each of M numbers.

    Args:
        values: (B, M) of B resamples; NaN where a resample does not define it.
        value: (M,) of all clusters.
        left_out: (P, M) of all clusters but one, NaN where that does not define it; only their skewness counts.

    Returns:
        (M,) and (M,); NaN where the resamples of a number do not vary, or none of them defines it.
    """
    ordered = np.sort(values, axis=0)  # NaN last
    defined = np.sum(np.isfinite(ordered), axis=0)
    tolerance = _SAME * np.maximum(1.0, np.abs(value))
    same = np.sum(np.abs(ordered - value) <= tolerance, axis=0)
    below = np.sum(ordered < value - tolerance, axis=0) + 0.5 * same
    last = np.maximum(defined - 1, 0)
    columns = np.arange(len(value))
    spread = ordered[last, columns] - ordered[0]
    # Where nothing varies, 1 stands in for what is masked at the end.
    of = np.maximum(defined, 1)
    bias = _quantile(np.clip(below / of, 1 / of, 1 - 1 / of))
    bend = _acceleration(left_out)
    bounds = []
    for z in (-_Z, _Z):
        place = _probability(bias + (bias + z) / (1 - bend * (bias + z))) * last
        first = np.floor(place).astype(np.int64)
        second = np.minimum(first + 1, last)
        low, high = ordered[first, columns], ordered[second, columns]
        bound = low + (place - first) * (high - low)
        bounds.append(np.where((defined > 1) & (spread > tolerance), bound, np.nan))
    return bounds[0], bounds[1]


def _acceleration(left_out: np.ndarray) -> np.ndarray:
    """A sixth of the skewness of the jackknife (Efron 1987, equation 6.6); 0 where it does not vary."""
    known = np.isfinite(left_out)
    count = np.maximum(known.sum(axis=0), 1)
    moved = np.where(known, np.where(known, left_out, 0.0).sum(axis=0) / count - left_out, 0.0)
    spread = np.sum(moved**2, axis=0) ** 1.5
    return np.divide(np.sum(moved**3, axis=0), 6 * spread, out=np.zeros_like(spread), where=spread > 0)


def _quantile(probabilities: np.ndarray) -> np.ndarray:
    return np.array([_NORMAL.inv_cdf(min(max(float(p), 1e-12), 1 - 1e-12)) for p in probabilities])


def _probability(z: np.ndarray) -> np.ndarray:
    return np.array([_NORMAL.cdf(float(one)) for one in z])
