"""Mild for severe, small for large, acute for chronic: a word of a scale for a distant one of the same scale."""

from __future__ import annotations

import re

import numpy as np

from medvlm.data_recipes.pairs.case import Case, Change
from medvlm.data_recipes.pairs.english import Sentence, like, put
from medvlm.data_recipes.pairs.finding_words import mentioned
from medvlm.data_recipes.pairs.pool import Pool

SCALES: dict[str, tuple[tuple[str, ...], ...]] = {
    "degree": (("minimal", "slight"), ("mild",), ("moderate",), ("severe", "marked", "extensive")),
    "degree, adverb": (("minimally", "slightly"), ("mildly",), ("moderately",), ("severely", "markedly")),
    "size": (("tiny", "trace"), ("small",), (), ("large",), ("massive", "huge")),
    "age": (("chronic",), (), ("acute",)),
}
"""Words of each level, from least to most; a swap goes MINIMUM_STEPS levels or more, to the first word."""

MINIMUM_STEPS = 2
_LEVEL = {
    word: (scale, place) for scale, levels in SCALES.items() for place, words in enumerate(levels) for word in words
}
_WORD = re.compile(rf"(?<![\w-])({'|'.join(sorted(_LEVEL, key=len, reverse=True))})(?![\w-])", re.I)
# Ranges ("mild to moderate") have no single level, and some words belong to the name of a thing.
_RANGE = re.compile(
    r"\b(?:to|or|on|and)\s+$|^\s+(?:to|or|on|and)\s+(?:minimal|mild|moderate|"
    r"severe|marked|small|large|chronic|acute)",
    re.I,
)
_NAME_AFTER = re.compile(
    r"^\s+(?:bowel|intestin\w+|airways?|vessels?|body habitus|sized|in caliber|kypho\w+|angulat\w+|field|angle|"
    r"obstructive|bronch\w+|kidney disease|part|amount of|cell|distance|portion|saphenous)\b",
    re.I,
)


def severity_swap(case: Case, rng: np.random.Generator, pool: Pool) -> Change | None:
    """One word of severity, size or age is swapped, wherever it is said of the same finding."""
    if not case.english or (not case.is_report and any(s.doubtful for s in case.sentences)):
        return None
    ways = [
        (sentence, match)
        for sentence in case.sentences
        for match in _WORD.finditer(sentence.said)
        if _swappable(case, sentence, match)
    ]
    if not ways:
        return None
    sentence, match = ways[int(rng.integers(len(ways)))]
    old = match[1].lower()
    scale, level = _LEVEL[old]
    targets = [words[0] for place, words in enumerate(SCALES[scale]) if words and abs(place - level) >= MINIMUM_STEPS]
    new = targets[int(rng.integers(len(targets)))]
    keys = set(mentioned(sentence.text))
    spots = [
        (other.start + found.start(1), other.start + found.end(1))
        for other in case.sentences
        for found in _WORD.finditer(other.said)
        if found[1].lower() == old and (other is sentence or keys & set(mentioned(other.text)))
        and _swappable(case, other, found)
    ]  # fmt: skip
    text = case.answer
    for start, end in sorted(spots, reverse=True):
        text = put(text, start, end, like(new, text[start:end]))
    return Change(text=text, how={"scale": scale, "old": old, "new": new, "spans": [list(spot) for spot in spots]})


def _swappable(case: Case, sentence: Sentence, match: re.Match[str]) -> bool:
    before, after = sentence.text[: match.start()], sentence.text[match.end() :]
    if _RANGE.search(before) or _RANGE.search(after) or _NAME_AFTER.search(after):
        return False
    # In a report the word must be said of a finding; an answer may be the word alone.
    return not case.is_report or bool(mentioned(sentence.said))
