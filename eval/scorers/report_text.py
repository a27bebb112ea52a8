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
from rouge_score import tokenize
from sacrebleu.metrics.bleu import BLEU

from medvlm.eval.metric import Answered, Marks, Metric, Scorer, each, mean_of
from medvlm.eval.scorers.cjk import FLAG, has_cjk, spaced
from medvlm.eval.scorers.longest_common import rouge_l_f1

MAX_ORDER = 4
N_STATISTICS = 2 + 2 * MAX_ORDER

_SECTION = re.compile(r"\b(findings|impression)\s*:\s*", re.IGNORECASE)
_DEIDENTIFIED = re.compile(r"\b[xX]{3,}\b|\[\*\*.*?\*\*\]|_{3,}")

_CJK = "of Chinese, Japanese and Korean text every character is a word"
BLEU_SIGNATURE = (
    f"sacrebleu {version('sacrebleu')}, tokenizer 13a (zh where the text has such characters), lower case, exponential "
    "smoothing, effective order, section labels removed, in 0..1"
)
ROUGE_SIGNATURE = (
    f"words of rouge-score {version('rouge-score')}, rougeL F1 (equal to that library's, by a faster algorithm), no "
    f"stemming, section labels removed; {_CJK}"
)


@cache
def _bleu(tokenizer: str) -> BLEU:
    return BLEU(lowercase=True, effective_order=True, tokenize=tokenizer)


def without_labels(report: str) -> str:
    """``report`` without "Findings:" and "Impression:", which in both texts would inflate every overlap."""
    return " ".join(_SECTION.sub(" ", report).split())


def bleu_statistics(answer: str, references: Sequence[str]) -> list[int]:
    """What corpus BLEU needs of one report; sums over reports are exact.

    Returns:
        [answer length, reference length, matching 1..4-grams, 1..4-grams of the answer]: 10 counts.
    """
    tokenizer = "zh" if any(has_cjk(text) for text in (answer, *references)) else "13a"
    score = _bleu(tokenizer).sentence_score(answer, list(references))
    return [int(n) for n in (score.sys_len, score.ref_len, *score.counts, *score.totals)]


def bleu_of(statistics: Sequence[float], order: int = MAX_ORDER) -> float:
    """Corpus BLEU-``order`` in 0..1 of summed statistics (Papineni et al. 2002; smoothing as in BLEU_SIGNATURE)."""
    return float(bleu_of_sums(np.array([statistics], dtype=float), order)[0])


def bleu_of_sums(sums: np.ndarray, order: int = MAX_ORDER) -> np.ndarray:
    """The same of many sums, (B, 10) -> (B,): sacrebleu's ``compute_bleu`` for a whole bootstrap at once."""
    sums = np.asarray(sums, dtype=float)
    hits, total = sums[:, 2 : 2 + order], sums[:, 2 + MAX_ORDER : 2 + MAX_ORDER + order]
    there = np.cumprod(total > 0, axis=1).astype(bool)  # effective order: up to the last one that the answer has
    halved = 2.0 ** np.cumsum(there & (hits == 0), axis=1)
    precision = np.where(hits > 0, hits, 1 / halved) / np.where(there, total, 1)
    orders = np.maximum(there.sum(axis=1), 1)
    mean = np.where(there, np.log(precision), 0).sum(axis=1) / orders
    answer, reference = sums[:, 0], sums[:, 1]
    brevity = np.minimum(0.0, 1 - reference / np.maximum(answer, 1e-300))
    return np.where((answer > 0) & (hits > 0).any(axis=1), np.exp(mean + brevity), 0.0)


def rouge_words(text: str) -> list[str]:
    """Words as rouge-score counts them (a-z and 0-9 only: "naïve" is two), and every CJK character."""
    if not has_cjk(text):
        return list(tokenize.tokenize(text, None))
    pieces = spaced(text).split()
    return [word for piece in pieces for word in ([piece] if has_cjk(piece) else tokenize.tokenize(piece, None))]


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """The best ROUGE-L F1 over the references (Lin 2004); see ``rouge_words`` for what a word is."""
    words = rouge_words(answer)
    return max(rouge_l_f1(words, rouge_words(reference)) for reference in references)


def degenerate(answer: str, references: Sequence[str]) -> list[str]:
    """Why an overlap of these two texts, section labels removed, means little."""
    flags: list[str] = []
    if not any(reference.strip() for reference in references):
        flags.append("empty reference")
    if not answer.strip():
        flags.append("empty answer")
    elif len(answer.split()) < MAX_ORDER:
        flags.append("answer of fewer than 4 words: no 4-gram")
    if any(has_cjk(text) for text in (answer, *references)):
        flags.append(FLAG)
    elif any(reference.strip() and not rouge_words(reference) for reference in references):
        flags.append("reference without a word of rouge-score (a-z, 0-9)")
    if any(_DEIDENTIFIED.search(text) for text in references):
        flags.append("marks of de-identification in the reference count as words")
    return flags


def _score(answers: Sequence[Answered]) -> list[Marks | None]:
    rows: list[Marks | None] = []
    for one in answers:
        text = without_labels(one.value or "")
        references = [without_labels(answer) for answer in one.question.answers]
        rows.append(
            {
                "bleu": bleu_statistics(text, references),
                "rouge_l": rouge_l(text, references),
                "words": len(spaced(one.value or "").split()),
                "reference": one.question.answers[0],
                "flags": degenerate(text, references),
            }
        )
    return rows


def _bleu_value(order: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda sums: bleu_of_sums(sums, order)


SCORERS = (
    Scorer(
        name="report_text",
        tier="A",
        kinds=("report",),
        implementation=f"BLEU: {BLEU_SIGNATURE}. ROUGE-L: {ROUGE_SIGNATURE}. Marks of de-identification (XXXX) count "
        "as words in both",
        score=_score,
        metrics=(
            Metric(name="rouge_l", title="Reports: ROUGE-L", kinds=("report",), counts=mean_of("rouge_l")),
            *(
                Metric(
                    name=f"bleu_{n}", title=f"Reports: BLEU-{n} (sacrebleu)", kinds=("report",),
                    counts=each(lambda row: [float(v) for v in row["bleu"]]), value=_bleu_value(n),
                )
                for n in range(1, MAX_ORDER + 1)
            ),
        ),
        degenerate="empty texts score 0; an answer of fewer than 4 words has no 4-gram; neither sees a negation",
    ),
)  # fmt: skip
