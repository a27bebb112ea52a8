"""How well documents are ranked: nDCG, recall and reciprocal rank, where ties are broken against the model.

All read scores of every document of the corpus, not a cut list. Among documents of one score the less relevant stand
first, so that a model that says the same of all of them finds nothing; trec_eval breaks ties by the names of documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

DEPTH = 100
"""Documents kept of each ranking."""
NDCG_AT = (10,)
RECALL_AT = (1, 5, 10, 100)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The best documents for one query.

    Attributes:
        places: numbers of documents, the best first; at most DEPTH.
        scores: theirs.
        first_right: place of the first relevant document among all documents, from 1.
    """

    places: np.ndarray
    scores: np.ndarray
    first_right: int


def rank(scores: np.ndarray, grades: Mapping[int, int], *, depth: int = DEPTH) -> Ranking:
    """Order documents by their scores.

    Args:
        scores: (N,) of N documents.
        grades: number of a document -> its grade; more than 0 is relevant, others are not.

    Raises:
        ValueError: a score is not a number, or no document is relevant.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite: the embeddings are not usable")
    right = np.array([place for place, grade in grades.items() if grade > 0], dtype=np.int64)
    if not len(right):
        raise ValueError("no document is relevant to the query; leave it out")
    depth = min(depth, len(scores))
    least = np.partition(scores, len(scores) - depth)[len(scores) - depth]
    reaching = np.flatnonzero(scores >= least)  # all that tie with the last one too
    held = np.array([max(grades.get(int(place), 0), 0) for place in reaching])
    order = np.lexsort((held, -scores[reaching]))[:depth]
    best = scores[right].max()
    wrong = np.ones(len(scores), dtype=bool)
    wrong[right] = False
    return Ranking(
        places=reaching[order],
        scores=scores[reaching[order]],
        first_right=1 + int(np.sum(wrong & (scores >= best))),
    )


def ndcg(ranking: Ranking, grades: Mapping[int, int], k: int, *, missing: tuple[int, ...] = ()) -> float:
    """Normalised discounted cumulative gain of the first k (Järvelin and Kekäläinen 2002), with the grade as gain.

    As ndcg_cut of trec_eval: gain over log2(place + 1), over that of the best order of all judged documents. BEIR and
    MTEB report this one; scikit-learn's averages over ties instead.

    Args:
        missing: grades of judged documents that are not in the corpus.
    """
    gains = [max(grades.get(int(place), 0), 0) for place in ranking.places[:k]]
    ideal = sorted((max(grade, 0) for grade in (*grades.values(), *missing)), reverse=True)[:k]
    return _discounted(gains) / _discounted(ideal)


def _discounted(gains: list[int]) -> float:
    return float(np.sum(np.asarray(gains, dtype=np.float64) / np.log2(np.arange(2, len(gains) + 2))))


def recall(ranking: Ranking, grades: Mapping[int, int], k: int, *, missing: tuple[int, ...] = ()) -> float:
    """Share of all relevant documents among the first k (``recall`` of trec_eval); arguments as in ``ndcg``."""
    found = sum(grades.get(int(place), 0) > 0 for place in ranking.places[:k])
    return found / sum(grade > 0 for grade in (*grades.values(), *missing))


def measures_of(ranking: Ranking, grades: Mapping[int, int], *, missing: tuple[int, ...] = ()) -> dict[str, float]:
    """Every measure of one query, by name."""
    return {
        **{f"ndcg_at_{k}": ndcg(ranking, grades, k, missing=missing) for k in NDCG_AT},
        **{f"recall_at_{k}": recall(ranking, grades, k, missing=missing) for k in RECALL_AT},
        "mrr": 1 / ranking.first_right,
    }
