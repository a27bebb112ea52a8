"""Sentence BLEU of nltk, averaged over reports: what MedEvalKit and papers that follow it print as BLEU.

Not comparable with the other two: unsmoothed, so that a report without one matching 4-gram scores 1e-78 to 1e-231, and
a mean of sentences where BLEU was defined over a corpus (Papineni et al. 2002). On ten reports of the tests one model
has a BLEU-4 of 0.286 (coco), 0.327 (sacrebleu) and 0.177 (this one).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence


def dotted_words(text: str) -> list[str]:
    """Words between blanks, a full stop being one of its own: the tokens of MedEvalKit, and of RadCliQ's BLEU-2."""
    return text.lower().replace(".", " .").split()


def nltk_bleu(answer: str, references: Sequence[str], orders: Sequence[int] = (4,)) -> list[float]:
    """nltk's ``sentence_bleu`` with equal weights up to each of ``orders`` and no smoothing."""
    # Where it is used: nltk takes more than a second to import, and trainings import the catalogue of scorers.
    from nltk.translate.bleu_score import sentence_bleu

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="nltk")  # it warns of every report without a 4-gram
        weights = [[1 / order] * order for order in orders]
        words = [dotted_words(text) for text in references]
        return [float(value) for value in _listed(sentence_bleu(words, dotted_words(answer), weights=weights))]


def _listed(value: float | list[float]) -> list[float]:
    return value if isinstance(value, list) else [value]
