"""How often each cluster (patient, study) is drawn: the same draws for every number of a run.

The bootstrap is the Poisson bootstrap (Hanley and MacGibbon 2006; Chamandy et al. 2012): each cluster counts a
Poisson(1) number of times, independently of the others. Against drawing exactly as many clusters as there are, its
intervals are wider by about 1 / (2 n), which is what a bootstrap over few clusters lacks; cluster number 17 is drawn
alike in every table, whatever stands beside it; and the draws are made once a process.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

RESAMPLES = 2000
_BLOCK = 1024
_GRAIN = 2.0**24
"""Counts are rounded to multiples of 1 / _GRAIN before they are drawn again: sums up to 2^29 are then exact in float64,
and so the same to the last bit whatever the number of threads and the library of the matrix product."""


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
        total += drawn.T.astype(np.float64) @ part
    return total


def cluster_sums(counts: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Counts, rounded to _GRAIN, summed within clusters.

    Args:
        counts: (N, K).
        names: N names or numbers of clusters.

    Returns:
        (P, K), in the order of the sorted names.
    """
    _, index = np.unique(names, return_inverse=True)
    values = np.round(np.asarray(counts, dtype=np.float64) * _GRAIN) / _GRAIN
    return np.stack([np.bincount(index, weights=values[:, column]) for column in range(values.shape[1])], axis=1)
