"""Exact match and token F1 of short open answers, as SQuAD computes them (Rajpurkar et al. 2016)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from medvlm.eval.metric import Answered, Marks, Metric, Scorer, mean_of

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, no punctuation, no articles, single blanks; a text that is only an article or a sign stays as it is.

    The evaluation script of SQuAD makes nothing of "A", so that who answers the label of a part of a figure is wrong.
    """
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
    return max((_f1(normalise(answer).split(), normalise(r).split()) for r in references), default=0.0)


def _f1(answer: list[str], reference: list[str]) -> float:
    shared = sum((Counter(answer) & Counter(reference)).values())
    return 2 * shared / (len(answer) + len(reference)) if shared else 0.0


def _score(answers: Sequence[Answered]) -> list[Marks | None]:
    return [
        {
            "exact_match": exact_match(one.value or "", one.question.answers),
            "token_f1": token_f1(one.value or "", one.question.answers),
            "words": len((one.value or "").split()),
            "reference": one.question.answers[0],
        }
        for one in answers
    ]


SCORERS = (
    Scorer(
        name="short_answer",
        tier="A",
        kinds=("open",),
        implementation="medvlm, after the evaluation script of SQuAD 1.1: lower case, no punctuation, no articles; "
        "tokens as multisets",
        score=_score,
        metrics=(
            Metric(
                name="open_exact_match", title="Open answers: exact match", kinds=("open",),
                counts=mean_of("exact_match"), share=True,
            ),
            Metric(name="open_token_f1", title="Open answers: token F1", kinds=("open",), counts=mean_of("token_f1")),
            Metric(
                name="mean_words", title="Words per answer", kinds=("open", "report"), counts=mean_of("words"),
                unit="words", better="neither",
            ),
        ),
    ),
)  # fmt: skip
