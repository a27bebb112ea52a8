"""Exact match and token F1 of short open answers, as SQuAD computes them (Rajpurkar et al. 2016)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, no punctuation, no articles, single blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


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
