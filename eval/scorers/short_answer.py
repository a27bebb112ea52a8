"""Short open answers: exact match and token F1 as SQuAD computes them (Rajpurkar et al. 2016), recall, BLEU-1.

Token recall is what LLaVA-Med and its followers print as open accuracy. It rewards length: an answer that names every
organ recalls the right one. So the ratio of lengths stands beside it, and F1 is the one to compare.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from medvlm.eval.metric import Answered, Marks, Metric, Scorer, each, mean_of
from medvlm.eval.scorers.cjk import FLAG, has_cjk, spaced, without_punctuation

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, no punctuation, no articles, single blanks; a text that is only an article or a sign stays as it is.

    The evaluation script of SQuAD makes nothing of "A", so that who answers the label of a part of a figure is wrong.
    Of Chinese, Japanese and Korean text each character is a word, and its own punctuation goes too.
    """
    if has_cjk(text):
        text = spaced(without_punctuation(text))
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split()) or " ".join(bare.split()) or " ".join(text.split())


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 when the normalised answer equals a normalised reference; an empty answer matches nothing."""
    plain = normalise(answer)
    return float(bool(plain) and any(plain == normalise(reference) for reference in references))


def token_f1(answer: str, references: Sequence[str]) -> float:
    """The best harmonic mean of token precision and recall over the references.

    Tokens are counted as MULTISETS: "lung lung lung" does not match "lung" three times.
    """
    words = normalise(answer).split()
    return max((_overlap(words, normalise(r).split())[2] for r in references), default=0.0)


def token_precision_recall_f1(answer: str, references: Sequence[str]) -> tuple[float, float, float]:
    """Token precision, recall and F1, each the best over the references; 0 for an empty answer."""
    words = normalise(answer).split()
    found = [_overlap(words, normalise(reference).split()) for reference in references]
    return max(one[0] for one in found), max(one[1] for one in found), max(one[2] for one in found)


def _overlap(answer: list[str], reference: list[str]) -> tuple[float, float, float]:
    shared = _shared(answer, reference)
    if not shared:
        return 0.0, 0.0, 0.0
    return shared / len(answer), shared / len(reference), 2 * shared / (len(answer) + len(reference))


def _shared(answer: list[str], reference: list[str]) -> int:
    if len(answer) == 1:  # most answers are one word, and 100,000 of them are marked at a time
        return int(answer[0] in reference)
    return sum((Counter(answer) & Counter(reference)).values())


def _bleu_1(answer: list[str], references: list[list[str]]) -> list[int]:
    """[words of the answer, of the closest reference, answer's words that some reference has (clipped)]."""
    if len(references) == 1:
        return [len(answer), len(references[0]), _shared(answer, references[0])]
    closest = min((abs(len(reference) - len(answer)), len(reference)) for reference in references)[1]
    most: Counter[str] = Counter()
    for reference in references:
        most |= Counter(reference)
    return [len(answer), closest, sum((Counter(answer) & most).values())]


def bleu_1_of_sums(sums: np.ndarray) -> np.ndarray:
    """Corpus BLEU-1 (Papineni et al. 2002) of sums of counts: (B, 3) -> (B,)."""
    answer, reference, hits = (np.asarray(sums[:, place], dtype=float) for place in range(3))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = hits / answer * np.exp(np.minimum(0.0, 1 - reference / answer))
    return np.where(answer > 0, value, 0.0)


def _mark(one: Answered) -> Marks:
    given, references = one.value or "", one.question.answers
    plain, expected = normalise(given), [normalise(reference) for reference in references]
    words, others = plain.split(), [reference.split() for reference in expected]
    overlap = [_overlap(words, other) for other in others]
    flags = []
    if not any(character.isalnum() for reference in references for character in reference):
        flags.append("reference of signs only")
    if has_cjk(given) or any(has_cjk(reference) for reference in references):
        flags.append(FLAG)
    return {
        "exact_match": float(bool(plain) and plain in expected),
        "token_f1": max(found[2] for found in overlap),
        "token_precision": max(found[0] for found in overlap),
        "token_recall": max(found[1] for found in overlap),
        "bleu_1": _bleu_1(words, others),
        "words": len(spaced(given).split()),
        "reference_words": len(spaced(references[0]).split()),
        "reference": references[0],
        **({"flags": flags} if flags else {}),
    }


def _score(answers: Sequence[Answered]) -> list[Marks | None]:
    return [_mark(one) for one in answers]


SCORERS = (
    Scorer(
        name="short_answer",
        tier="A",
        kinds=("open",),
        implementation="medvlm, after the evaluation script of SQuAD 1.1: lower case, no punctuation, no articles; "
        "tokens as multisets; of Chinese, Japanese and Korean text every character is a token. Recall: share of the "
        "tokens of the reference. BLEU-1: over the same tokens, pooled, with brevity penalty. The best over references",
        score=_score,
        degenerate="a reference of signs only is matched by those signs; an answer that lists everything has recall 1",
        metrics=(
            Metric(
                name="open_exact_match", title="Open answers: exact match", kinds=("open",),
                counts=mean_of("exact_match"), share=True,
            ),
            Metric(name="open_token_f1", title="Open answers: token F1", kinds=("open",), counts=mean_of("token_f1")),
            Metric(
                name="open_token_recall", title="Open answers: token recall (rewards length)", kinds=("open",),
                counts=mean_of("token_recall"),
            ),
            Metric(
                name="open_token_precision", title="Open answers: token precision", kinds=("open",),
                counts=mean_of("token_precision"),
            ),
            Metric(
                name="open_length_ratio", title="Open answers: length against the reference", kinds=("open",),
                counts=each(lambda row: [float(row["words"]), float(row["reference_words"])]), unit="times",
                better="neither",
            ),
            Metric(
                name="open_bleu_1", title="Open answers: BLEU-1", kinds=("open",),
                counts=each(lambda row: [float(count) for count in row["bleu_1"]]), value=bleu_1_of_sums,
            ),
            Metric(
                name="mean_words", title="Words per answer", kinds=("open", "report"), counts=mean_of("words"),
                unit="words", better="neither",
            ),
        ),
    ),
)  # fmt: skip
