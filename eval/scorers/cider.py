"""CIDEr-D (Vedantam et al. 2015) as pycocoevalcap.cider computes it: rare n-grams of the references count more.

How rare an n-gram is follows from the evaluated references themselves, so that a value holds for that corpus only: one
report alone scores 0 even when it is perfect, and a subset scores otherwise than the whole.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from medvlm.eval.scorers.coco_bleu import ORDERS, ngrams

_SIGMA = 6.0
_Grams = list[Counter[tuple[str, ...]]]
_Vector = tuple[list[dict[tuple[str, ...], float]], list[float], int]


def cider_d(answers: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> list[float]:
    """CIDEr-D of each report, 0 to 10; the corpus value is their mean.

    Args:
        answers: words of N answers.
        references: for each of them the words of its references.
    """
    grams = [[_grams(words) for words in one] for one in references]
    frequency: Counter[tuple[str, ...]] = Counter()
    for one in grams:
        frequency.update({gram for reference in one for counts in reference for gram in counts})
    weight = {gram: math.log(len(grams)) - math.log(count) for gram, count in frequency.items()}
    unseen = math.log(len(grams)) if grams else 0.0

    def vector(counts: _Grams) -> _Vector:
        values = [{gram: n * weight.get(gram, unseen) for gram, n in order.items()} for order in counts]
        norms = [math.sqrt(sum(value * value for value in order.values())) for order in values]
        return values, norms, sum(counts[1].values())

    scores = []
    for answer, one in zip(answers, grams, strict=True):
        mine = vector(_grams(answer))
        scores.append(10 * sum(_likeness(mine, vector(reference)) for reference in one) / len(one))
    return scores


def _grams(words: Sequence[str]) -> _Grams:
    return [ngrams(words, order) for order in range(1, ORDERS + 1)]


def _likeness(answer: _Vector, reference: _Vector) -> float:
    """Mean over the orders of the clipped cosine, less for another length (counted in pairs of words)."""
    total = 0.0
    for mine, theirs, norm, other in zip(answer[0], reference[0], answer[1], reference[1], strict=True):
        shared = sum(min(value, theirs[gram]) * theirs[gram] for gram, value in mine.items() if gram in theirs)
        total += shared / (norm * other) if norm and other else shared
    delta = answer[2] - reference[2]
    return total / ORDERS * math.exp(-(delta**2) / (2 * _SIGMA**2))
