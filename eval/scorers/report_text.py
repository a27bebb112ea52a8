"""How much a report's words agree with the reference: BLEU by sacrebleu, ROUGE-L by rouge-score.

Both reward wording and neither sees a negation: "Pleural effusion." against "No pleural effusion." scores BLEU 0.72 and
ROUGE-L 0.8. Read them beside the findings, never alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from medvlm.eval.metric import Answered, Marks, Metric, Scorer, each, mean_of

MAX_ORDER = 4
N_STATISTICS = 2 + 2 * MAX_ORDER

_SECTION = re.compile(r"\b(findings|impression)\s*:\s*", re.IGNORECASE)

BLEU_SIGNATURE = (
    f"sacrebleu {version('sacrebleu')}, tokenizer 13a, lower case, exponential smoothing, effective order, "
    "section labels removed, in 0..1"
)
ROUGE_SIGNATURE = f"rouge-score {version('rouge-score')}, rougeL F1, no stemming, section labels removed"


@cache
def _bleu() -> BLEU:
    return BLEU(lowercase=True, effective_order=True)


@cache
def _rouge() -> RougeScorer:
    return RougeScorer(["rougeL"], use_stemmer=False)


def without_labels(report: str) -> str:
    """``report`` without "Findings:" and "Impression:", which in both texts would inflate every overlap."""
    return " ".join(_SECTION.sub(" ", report).split())


def bleu_statistics(answer: str, references: Sequence[str]) -> list[int]:
    """What corpus BLEU needs of one report; sums over reports are exact.

    Returns:
        [answer length, reference length, matching 1..4-grams, 1..4-grams of the answer]: 10 counts.
    """
    score = _bleu().sentence_score(answer, list(references))
    return [int(n) for n in (score.sys_len, score.ref_len, *score.counts, *score.totals)]


def bleu_of(statistics: Sequence[float], order: int = MAX_ORDER) -> float:
    """Corpus BLEU-``order`` in 0..1 of summed statistics (Papineni et al. 2002; smoothing as in BLEU_SIGNATURE)."""
    counts = [int(n) for n in statistics]
    if counts[0] == 0:
        return 0.0
    score = BLEU.compute_bleu(
        correct=counts[2 : 2 + order],
        total=counts[2 + MAX_ORDER : 2 + MAX_ORDER + order],
        sys_len=counts[0],
        ref_len=counts[1],
        smooth_method="exp",
        effective_order=True,
        max_ngram_order=order,
    )
    return float(score.score) / 100.0


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """The best ROUGE-L F1 over the references (Lin 2004).

    The tokenizer knows a-z and 0-9 only: text in other alphabets scores 0 even against itself.
    """
    return max(float(_rouge().score(reference, answer)["rougeL"].fmeasure) for reference in references)


BLEU_RESAMPLES = 500
"""Corpus BLEU is computed resample by resample, some 30 microseconds each."""


def _score(answers: Sequence[Answered]) -> list[Marks | None]:
    rows: list[Marks | None] = []
    for one in answers:
        text = without_labels(one.value or "")
        references = [without_labels(answer) for answer in one.question.answers]
        rows.append(
            {
                "bleu": bleu_statistics(text, references),
                "rouge_l": rouge_l(text, references),
                "words": len((one.value or "").split()),
                "reference": one.question.answers[0],
            }
        )
    return rows


def _bleu_of_sums(order: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda sums: np.array([bleu_of(row, order) for row in sums])


SCORERS = (
    Scorer(
        name="report_text",
        tier="A",
        kinds=("report",),
        implementation=f"BLEU: {BLEU_SIGNATURE}. ROUGE-L: {ROUGE_SIGNATURE}",
        score=_score,
        metrics=(
            Metric(name="rouge_l", title="Reports: ROUGE-L", kinds=("report",), counts=mean_of("rouge_l")),
            *(
                Metric(
                    name=f"bleu_{n}", title=f"Reports: BLEU-{n}", kinds=("report",),
                    counts=each(lambda row: [float(v) for v in row["bleu"]]), value=_bleu_of_sums(n),
                    resamples=BLEU_RESAMPLES,
                )
                for n in range(1, MAX_ORDER + 1)
            ),
        ),
    ),
)  # fmt: skip
