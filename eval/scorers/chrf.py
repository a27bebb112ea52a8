"""chrF2 (Popović 2015): overlap of characters, so that no tokenizer has a say; as sacrebleu computes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

CHARACTERS = 6
_BETA = 2.0


def chrf_counts(answer: str, references: Sequence[str]) -> list[int]:
    """What chrF needs of one text, blanks removed, of the reference that scores best; sums over texts are exact.

    Returns:
        [n-grams of the answer, of the reference, shared] for n = 1..6: 18 counts.
    """
    plain = "".join(answer.split())
    best: list[int] = []
    highest = -1.0
    mine = [_grams(plain, order) for order in range(1, CHARACTERS + 1)]
    for reference in references:
        other = "".join(reference.split())
        counts: list[int] = []
        for order, grams in enumerate(mine, start=1):
            theirs = _grams(other, order)
            shared = sum(min(count, theirs[gram]) for gram, count in grams.items() if gram in theirs)
            of_answer, of_reference = (max(0, len(text) - order + 1) for text in (plain, other))
            counts += [of_answer if of_reference else 0, of_reference, shared]
        value = float(chrf_of_counts(np.array([counts]))[0])
        if value > highest:
            best, highest = counts, value
    return best


def _grams(text: str, order: int) -> Counter[str]:
    return Counter([text[place : place + order] for place in range(len(text) - order + 1)])


def chrf_of_counts(counts: np.ndarray) -> np.ndarray:
    """chrF2 of sums of counts: (B, 18) -> (B,), 0 to 1; orders that one of the texts is too short for are left out."""
    counts = np.asarray(counts, dtype=float).reshape(len(counts), CHARACTERS, 3)
    answer, reference, shared = counts[..., 0], counts[..., 1], counts[..., 2]
    used = (answer > 0) & (reference > 0)
    orders = np.maximum(used.sum(axis=1), 1)
    precision = np.where(used, shared / np.maximum(answer, 1), 0).sum(axis=1) / orders
    recall = np.where(used, shared / np.maximum(reference, 1), 0).sum(axis=1) / orders
    below = _BETA**2 * precision + recall
    return np.where(below > 0, (1 + _BETA**2) * precision * recall / np.where(below > 0, below, 1), 0.0)
