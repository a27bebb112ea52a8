"""Recall and median rank: hand values, ties, several right candidates, and what is refused."""

import numpy as np
import pytest

from medvlm.eval.scorers.retrieval import median_rank, ranks, recall_at

SIMILARITY = np.array([[0.9, 0.1, 0.3], [0.8, 0.5, 0.2], [0.4, 0.6, 0.5]])


def test_hand_values():
    assert ranks(SIMILARITY).tolist() == [1, 2, 2]
    assert recall_at(SIMILARITY, 1) == pytest.approx(1 / 3)
    assert recall_at(SIMILARITY, 2) == recall_at(SIMILARITY, 5) == 1
    assert median_rank(SIMILARITY) == 2
    assert ranks(SIMILARITY.T).tolist() == [1, 2, 1], "visuals by text"


def test_embeddings_that_are_all_alike_find_nothing():
    assert ranks(np.ones((4, 4))).tolist() == [4, 4, 4, 4]
    assert recall_at(np.ones((4, 4)), 1) == 0


def test_several_right_candidates():
    right = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]])
    assert ranks(SIMILARITY, right).tolist() == [1, 1, 2]
    # A right candidate never stands before another right one.
    assert ranks(np.array([[0.5, 0.5, 0.5]]), np.array([[1, 1, 0]])).tolist() == [2]


@pytest.mark.parametrize(
    ("similarity", "right", "message"),
    [
        (np.ones((2, 3)), None, r"shape \(2, 3\)"),
        (np.ones((2, 2)), np.array([[1, 0], [0, 0]]), "query 1 has no right"),
        (np.array([[1.0, np.nan], [0, 1]]), None, "not finite"),
        (np.ones((2, 2)), np.ones((3, 2)), r"right has shape \(3, 2\)"),
        (np.ones((0, 0)), None, "queries x candidates"),
    ],
)
def test_what_is_refused(similarity, right, message):
    with pytest.raises(ValueError, match=message):
        ranks(similarity, right)
    with pytest.raises(ValueError, match="k is 0"):
        recall_at(SIMILARITY, 0)
