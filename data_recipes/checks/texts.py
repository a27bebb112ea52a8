"""The same text in two splits, or in training and a registered test set: n-grams that overlap."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np

from medvlm.data_recipes.checks.catalogue import PARTS, Catalogue, Seen, digest
from medvlm.data_recipes.checks.finding import Finding
from medvlm.data_recipes.errors import BadSample

WORDS = 13
"""Words of an n-gram, as in the contamination analysis of GPT-3 (Brown et al. 2020, appendix C)."""

COMMON = 10
"""An n-gram in more held-out rows than this is a phrase of a template and proves nothing (the same source)."""

_SHARE = 0.5
"""Of a row's n-grams: from here on the row counts as a copy, below as one that shares a passage."""

_ODD = np.uint64(0x9E3779B97F4A7C15)


class _Held:
    """n-grams of held-out rows, sorted, with the row of each; 12 bytes an n-gram."""

    def __init__(self) -> None:
        self._grams, self._rows = array("Q"), array("Q")

    def add(self, number: int, grams: np.ndarray) -> None:
        self._grams.frombytes(np.unique(grams).tobytes())
        self._rows.extend([number] * (len(self._grams) - len(self._rows)))

    def close(self) -> None:
        grams, rows = np.array(self._grams, np.uint64), np.array(self._rows, np.uint64)
        order = np.argsort(grams, kind="stable")
        grams, rows = grams[order], rows[order]
        values, first, counts = np.unique(grams, return_index=True, return_counts=True)
        self.values, self.rows = values[counts <= COMMON], rows[first[counts <= COMMON]]
        self.common = values[counts > COMMON]

    def find(self, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(whether it is held, the first row that holds it) of each n-gram; common ones are not held."""
        if not len(self.values):
            return np.zeros(len(grams), bool), np.zeros(len(grams), np.uint64)
        places = np.minimum(np.searchsorted(self.values, grams), len(self.values) - 1)
        return self.values[places] == grams, self.rows[places]


def text_findings(
    catalogue: Catalogue, content: Callable[[Seen], tuple[int, ...]], words: int = WORDS
) -> Iterator[Finding]:
    """Rows that hold the text of a row of a later part (validation and test for training, registered test sets).

    Questions are templates, and normal reports repeat. So a row with visuals is compared with rows of the same visuals
    only: question and answer as a whole where the answer is short, the answer by n-grams where it is long. Rows without
    visuals are compared among each other by the n-grams of all their words. Two passes over the manifests.

    Args:
        content: what tells the visuals of a row (see copies.Copies.content), empty where it has none.
        words: of an n-gram.
    """
    held = {part: _Held() for part in PARTS[1:]}
    for row in catalogue:
        if not isinstance(row, BadSample) and row.part in held:
            held[row.part].add(row.number, grams_of(row, content(row), words))
    for one in held.values():
        one.close()
    if not any(len(one.values) for one in held.values()):
        return
    for row in catalogue:
        if isinstance(row, BadSample) or row.part not in ("train", "validation"):
            continue
        grams = np.unique(grams_of(row, content(row), words))
        for part in PARTS[PARTS.index(row.part) + 1 :]:
            if part == "registered" and row.part != "train":
                continue
            known, rows = held[part].find(grams)
            if known.any():
                yield _finding(catalogue, row, part, int(known.sum()), len(grams), int(rows[known][0]))


def _finding(catalogue: Catalogue, row: Seen, part: str, shared: int, total: int, other: int) -> Finding:
    copy = shared >= _SHARE * total
    what = "all of its text" if shared == total else f"{shared} of its {total} passages of {WORDS} words"
    where = "a registered test set" if part == "registered" else f"the {part} split"
    about = " about the same visual" if row.visuals() else ""
    return Finding(
        check="test_set_texts" if part == "registered" else "text_copies",
        severity="error" if copy else "warning",
        where=row.where,
        sample_id=row.sample.sample_id,
        reason=f"{what}{about} also in {where} ({catalogue.where(other)})",
        mend="leave the row out, or send both to one split",
    )


def grams_of(row: Seen, content: tuple[int, ...], words: int = WORDS) -> np.ndarray:
    """Hashes of the n-grams of a row, uint64; of texts that are shorter one hash of the whole."""
    asked = [turn.text for turn in row.sample.turns if turn.role != "assistant"]
    answers = list(row.answers())
    if not row.visuals():
        return shingles(" ".join([*asked, *answers]), words)
    # With visuals: the answer counts, and a short answer only together with its question.
    seed = np.uint64(digest(" ".join(map(str, content))))
    long = [answer for answer in answers if len(_words(answer)) >= words]
    texts = long or [" ".join([_bare(asked[-1] if asked else ""), *answers])]
    return np.concatenate([shingles(text, words) for text in texts]) ^ seed


def _bare(question: str) -> str:
    """Without "Answer yes or no.": recipes append it, and another version may not."""
    return re.sub(r"\s*Answer [^.]*\.\s*$", "", question)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


@lru_cache(maxsize=1 << 18)
def _word(word: str) -> int:
    return digest(word)


def shingles(text: str, words: int = WORDS) -> np.ndarray:
    """(number of n-grams,) uint64: a polynomial of the hashes of the words, case and punctuation aside."""
    found = np.array([_word(word) for word in _words(text)], np.uint64)
    if not len(found):
        return np.zeros(0, np.uint64)
    width = min(words, len(found))
    powers = np.cumprod(np.full(width, _ODD))
    return (np.lib.stride_tricks.sliding_window_view(found, width) * powers).sum(axis=1, dtype=np.uint64)
