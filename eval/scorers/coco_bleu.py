"""BLEU as COCO's caption metrics compute it (pycocoevalcap.bleu, after Papineni et al. 2002): what papers print.

Counts of all reports are pooled and each report's reference length is the closest one. No smoothing worth the name:
1e-15 and 1e-9 are added so that nothing is divided by zero, and an n-gram order without a match gives some 1e-5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

ORDERS = 4
_TINY, _SMALL = 1e-15, 1e-9


def ngrams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    """How often each sequence of ``order`` words stands in ``words``."""
    return Counter(zip(*(words[start:] for start in range(order)), strict=False))


def bleu_counts(answer: Sequence[str], references: Sequence[Sequence[str]]) -> list[int]:
    """What BLEU needs of one report; sums over reports are exact.

    Args:
        answer, references: words.

    Returns:
        [length of the answer, of the closest reference (the shorter of two that are as close), matching 1..4-grams,
        1..4-grams of the answer]: 10 counts.
    """
    length = len(answer)
    closest = min((abs(len(reference) - length), len(reference)) for reference in references)[1]
    hits = [_hits(answer, references, order) for order in range(1, ORDERS + 1)]
    return [length, closest, *hits, *(max(0, length - order + 1) for order in range(1, ORDERS + 1))]


def _hits(answer: Sequence[str], references: Sequence[Sequence[str]], order: int) -> int:
    """How many n-grams of the answer stand in a reference, each as often as in the one that has most of them."""
    most = ngrams(references[0], order)
    for reference in references[1:]:
        most |= ngrams(reference, order)
    return sum(min(count, most[gram]) for gram, count in ngrams(answer, order).items() if gram in most)


def bleu_of_counts(counts: np.ndarray, order: int) -> np.ndarray:
    """Corpus BLEU-``order`` of sums of counts: (B, 10) -> (B,), 0 to 1."""
    counts = np.asarray(counts, dtype=float)
    hits, total = counts[:, 2 : 2 + order], counts[:, 2 + ORDERS : 2 + ORDERS + order]
    product = np.prod((hits + _TINY) / (total + _SMALL), axis=1)
    ratio = (counts[:, 0] + _TINY) / (counts[:, 1] + _SMALL)
    with np.errstate(divide="ignore", over="ignore"):
        return product ** (1 / order) * np.exp(np.minimum(0.0, 1 - 1 / ratio))
