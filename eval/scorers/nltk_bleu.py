"""Sentence BLEU of nltk, averaged over reports: what MedEvalKit and papers that follow it print as BLEU.

Not comparable with the other two: unsmoothed, so that a report without one matching 4-gram scores 1e-78 to 1e-231, and
a mean of sentences where BLEU was defined over a corpus (Papineni et al. 2002). On ten reports of the tests one model
has a BLEU-4 of 0.286 (coco), 0.327 (sacrebleu) and 0.177 (this one).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from nltk.translate.bleu_score import sentence_bleu


def dotted_words(text: str) -> list[str]:
    """Words between blanks, a full stop being one of its own: the tokens of MedEvalKit, and of RadCliQ's BLEU-2."""
    return text.lower().replace(".", " .").split()


def nltk_bleu(answer: str, references: Sequence[str], order: int = 4) -> float:
    """nltk's ``sentence_bleu`` with equal weights up to ``order`` and no smoothing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="nltk")  # it warns of every report without a 4-gram
        weights = [1 / order] * order
        return float(sentence_bleu([dotted_words(text) for text in references], dotted_words(answer), weights=weights))
