"""BM25, the lexical baseline: exact, over all documents, with its parameters in its name."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

Tokens = Literal["words", "bigrams"]
_WORD = re.compile(r"\w+")
_HAN = re.compile(r"[぀-ヿ㐀-䶿一-鿿豈-﫿가-힯]+")


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores, casefolded after NFKC; nothing is stemmed or left out."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def bigrams(text: str) -> list[str]:
    """As ``words``, but a run of Chinese, Japanese or Korean signs becomes its pairs of neighbours (CJKAnalyzer)."""
    found: list[str] = []
    for word in words(text):
        start = 0
        for run in _HAN.finditer(word):
            found += [word[start : run.start()]] if run.start() > start else []
            signs = run.group()
            found += [signs[place : place + 2] for place in range(len(signs) - 1)] or [signs]
            start = run.end()
        found += [word[start:]] if start < len(word) else []
    return found


TOKENS: Mapping[Tokens, Callable[[str], list[str]]] = {"words": words, "bigrams": bigrams}


class BM25:
    """Robertson's BM25 as Lucene computes it: sum of idf * tf / (tf + k1 * (1 - b + b * length / mean length)).

    idf is log(1 + (N - df + 0.5) / (df + 0.5)), which is never negative. A term that stands twice in the query counts
    twice. Parameters of Lucene by default; Anserini and R2MED use k1=0.9, b=0.4 (Kamphuis et al., ECIR 2020, on the
    variants).

    Args:
        documents: their texts.
        tokens: how texts are cut, see TOKENS.

    Raises:
        ValueError: k1 < 0 or b outside 0..1, or no document.
    """

    def __init__(self, documents: Sequence[str], *, k1: float = 1.2, b: float = 0.75, tokens: Tokens = "words") -> None:
        if k1 < 0 or not 0 <= b <= 1 or not documents:
            raise ValueError(f"k1={k1}, b={b}, {len(documents)} documents: use k1 >= 0, b from 0 to 1 and documents")
        self._cut, self._size = TOKENS[tokens], len(documents)
        numbers: dict[str, int] = {}
        terms: list[int] = []
        owners: list[int] = []
        counts: list[int] = []
        lengths = np.zeros(len(documents))
        for place, text in enumerate(documents):
            held = Counter(self._cut(text))
            lengths[place] = sum(held.values())
            for term, count in held.items():
                terms.append(numbers.setdefault(term, len(numbers)))
                owners.append(place)
                counts.append(count)
        self._numbers = numbers
        order = np.argsort(np.asarray(terms, dtype=np.int64), kind="stable")
        document_frequency = np.bincount(np.asarray(terms, dtype=np.int64), minlength=len(numbers))
        self._owners = np.asarray(owners, dtype=np.int64)[order]
        self._starts = np.concatenate([[0], np.cumsum(document_frequency)]).astype(np.int64)
        idf = np.log1p((self._size - document_frequency + 0.5) / (document_frequency + 0.5))
        frequency = np.asarray(counts, dtype=np.float64)[order]
        mean = lengths.mean() or 1.0
        norm = k1 * (1 - b + b * lengths[self._owners] / mean)
        self._weights = np.repeat(idf, document_frequency) * frequency / (frequency + norm)

    def scores(self, query: str) -> np.ndarray:
        """(N,) float64; 0 for documents that share no term with the query."""
        total = np.zeros(self._size)
        for term, count in Counter(self._cut(query)).items():
            number = self._numbers.get(term)
            if number is not None:
                part = slice(self._starts[number], self._starts[number + 1])
                total[self._owners[part]] += count * self._weights[part]
        return total
