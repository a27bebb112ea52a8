"""How often each cluster (patient, study) is drawn: the same draws for every number of a run.

The bootstrap is the Poisson bootstrap (Hanley and MacGibbon 2006; Chamandy et al. 2012): each cluster counts a
Poisson(1) number of times, independently of the others. Against drawing exactly as many clusters as there are, its
intervals are wider by about 1 / (2 n), which is what a bootstrap over few clusters lacks; cluster number 17 is drawn
alike in every table, whatever stands beside it; and the draws are made once a process.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

RESAMPLES = 2000
_BLOCK = 1024
_GRAIN = 2.0**24
"""Counts are rounded to multiples of 1 / _GRAIN before they are drawn again: sums up to 2^29 are then exact in float64,
and so the same to the last bit whatever the number of threads and the library of the matrix product."""


_MOST_DRAWN = 32
"""A Poisson(1) number above it has a chance of 1e-36."""


@lru_cache(maxsize=64)
def _weights(block: int, resamples: int, seed: int) -> np.ndarray:
    """How often the clusters of one block of _BLOCK are drawn, (_BLOCK, resamples), a byte each."""
    return np.random.default_rng([seed, block]).poisson(1.0, size=(_BLOCK, resamples)).astype(np.uint8)


def resampled(sums: np.ndarray, *, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """Sums of counts over redrawn clusters.

    Args:
        sums: (P, K) as cluster_sums gives them.

    Returns:
        (resamples, K).
    """
    total = np.zeros((resamples, sums.shape[1]))
    for block, first in enumerate(range(0, len(sums), _BLOCK)):
        part = sums[first : first + _BLOCK]
        drawn = _weights(block, max(resamples, RESAMPLES), seed)[: len(part), :resamples]
        # Whole numbers are summed exactly in float32 up to 2^24, in less than half the time.
        whole = bool(np.all(part == np.round(part))) and float(np.abs(part).sum(axis=0).max()) * _MOST_DRAWN < 2**24
        kind = np.float32 if whole else np.float64
        # Not "@": threads of a matrix library wait for each other longer than these few columns take.
        total += np.einsum("pk,pb->kb", part.astype(kind), drawn.astype(kind)).T
    return total


def cluster_index(names: Sequence[str] | np.ndarray) -> tuple[np.ndarray, int]:
    """(the place of each row's cluster among the sorted names (N,), how many clusters there are)."""
    given = np.asarray(names)
    if len(given) and np.issubdtype(given.dtype, np.integer) and given.min() >= 0 and given.max() < 100 * len(given):
        present = np.bincount(given) > 0  # sorts nothing: a hundred thousand names are sorted in many milliseconds
        return (np.cumsum(present) - 1)[given], int(present.sum())
    found, index = np.unique(given, return_inverse=True)
    return index, len(found)


def cluster_sums(counts: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Counts, rounded to _GRAIN, summed within clusters.

    Args:
        counts: (N, K).
        index: (N,) as cluster_index gives it.

    Returns:
        (P, K), in the order of the sorted names.
    """
    values = np.round(np.asarray(counts, dtype=np.float64) * _GRAIN) / _GRAIN
    return np.stack([np.bincount(index, weights=values[:, column]) for column in range(values.shape[1])], axis=1)
