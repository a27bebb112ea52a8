"""How well visuals and texts find each other: recall among the k nearest, and the median rank."""

from __future__ import annotations

import numpy as np


def ranks(similarity: np.ndarray, right: np.ndarray | None = None) -> np.ndarray:
    """Place of the best right candidate of each query, from 1.

    A wrong candidate that is as similar as the right one stands before it, so that a model whose embeddings are all
    alike finds nothing.

    Args:
        similarity: (Q, C) of Q queries to C candidates.
        right: (Q, C) which candidates are right; None: candidate i for query i.

    Returns:
        (Q,) int64.

    Raises:
        ValueError: shapes that do not agree, a number that is not finite, or a query without a right candidate.
    """
    similarity = np.asarray(similarity, np.float64)
    if similarity.ndim != 2 or not similarity.size:
        raise ValueError(f"similarity has shape {similarity.shape}; pass queries x candidates")
    if not np.isfinite(similarity).all():
        raise ValueError("similarity holds a number that is not finite; the embeddings are not usable")
    if right is None:
        if similarity.shape[0] != similarity.shape[1]:
            raise ValueError(
                f"similarity has shape {similarity.shape}, so that candidate i cannot be the right one of query i; say "
                "which ones are right"
            )
        right = np.eye(len(similarity), dtype=bool)
    right = np.asarray(right, bool)
    if right.shape != similarity.shape:
        raise ValueError(f"right has shape {right.shape}, similarity {similarity.shape}")
    if not right.any(axis=1).all():
        raise ValueError(f"query {int(np.flatnonzero(~right.any(axis=1))[0])} has no right candidate; leave it out")
    best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)
    return 1 + (~right & (similarity >= best)).sum(axis=1)


def recall_at(similarity: np.ndarray, k: int, right: np.ndarray | None = None) -> float:
    """Share of the queries with a right candidate among their k most similar ones; arguments as in ``ranks``."""
    if k < 1:
        raise ValueError(f"k is {k}; use a whole number of at least 1")
    return float((ranks(similarity, right) <= k).mean())


def median_rank(similarity: np.ndarray, right: np.ndarray | None = None) -> float:
    """Median place of the right candidate (MdR); arguments as in ``ranks``."""
    return float(np.median(ranks(similarity, right)))
