"""Left for right: of a finding that is on one side only."""

from __future__ import annotations

import re

import numpy as np

from medvlm.data_recipes.pairs.case import Case, Change
from medvlm.data_recipes.pairs.english import Sentence, like
from medvlm.data_recipes.pairs.finding_words import asserted, group_of, mentioned
from medvlm.data_recipes.pairs.pool import Pool

_SWAP = {
    "right middle lobe": "lingula", "left": "right", "right": "left", "lul": "rul", "rul": "lul", "lll": "rll",
    "rll": "lll", "lingula": "right middle lobe", "rml": "lingula",
}  # fmt: skip
_SIDE = re.compile(r"\b(right middle lobe|left|right|LUL|RUL|LLL|RLL|RML|lingula)\b", re.I)
_NO_SIDE = re.compile(
    r"\ball right\b|\bright (?:now|away|after|before|angles?)\b|\b(?:is|was|are|"
    r"were|has|have) left\b|\bleft (?:in place|behind|out)\b",
    re.I,
)
_BOTH = re.compile(
    r"\b(?:bilateral(?:ly)?|both|bi(?:basilar|basal|apical)|each side|either side|"
    r"symmetric\w*)\b",
    re.I,
)
_SIDED_ORGAN = re.compile(r"\b(?:left|right)[- ](?:sided )?(?:ventric\w+|atri\w+|aortic arch|hand(?:ed)?)\b", re.I)


def _side_of(word: str) -> str:
    word = word.lower()
    return "left" if word in ("left", "lul", "lll", "lingula") else "right"


def _sides(text: str) -> set[str]:
    return {_side_of(word) for word in _SIDE.findall(text)}


def swapped(text: str) -> str:
    """ "left" <-> "right", with lobes that only one lung has ("right middle lobe" <-> "lingula")."""
    return _SIDE.sub(lambda found: like(_SWAP[found[1].lower()], found[1]), text)


def side_flip(case: Case, rng: np.random.Generator, pool: Pool) -> Change | None:
    """ "left" <-> "right".

    An answer that is a place ("left lower lobe") is flipped whole. In a report one finding changes sides, in every
    sentence that asserts it; never one that is also said to be on the other side or on both, and never a part that is
    called normal or free of something: "the left lung is clear" may be true of the right one too.
    """
    if not case.english or _NO_SIDE.search(case.answer):
        return None
    if not case.is_report:
        return _short_answer(case)
    candidates = [s for s in case.sentences if _flippable(s)]
    whole = _sides(case.answer)
    ways: list[list[Sentence]] = []
    for sentence in candidates:
        groups = {group_of(key) for key in mentioned(sentence.text)}
        if not groups:
            continue
        same = [s for s in case.sentences if s is sentence or groups & {group_of(key) for key in mentioned(s.text)}]
        spoken = [s for s in same if s.asserted or s.doubtful]
        clear = all(not _BOTH.search(s.text) and len(_sides(s.text)) <= 1 for s in spoken)
        if (clear and len({side for s in spoken for side in _sides(s.text)}) == 1) or (len(whole) == 1 and clear):
            ways.append([s for s in spoken if _sides(s.text)])
    if not ways:
        return None
    chosen = ways[int(rng.integers(len(ways)))]
    text = case.answer
    for sentence in sorted(chosen, key=lambda s: -s.start):
        text = text[: sentence.start] + swapped(sentence.text) + text[sentence.end :]
    first = chosen[0]
    return Change(
        text=text,
        how={"old": first.text, "new": swapped(first.text), "spans": [[s.start, s.end] for s in chosen]},
    )


def _flippable(sentence: Sentence) -> bool:
    return (
        len(_sides(sentence.text)) == 1
        and bool(asserted(sentence))
        and sentence.asserted == len(sentence.text)
        and not _BOTH.search(sentence.text)
        and not _SIDED_ORGAN.search(sentence.text)
    )


def _short_answer(case: Case) -> Change | None:
    answer = case.answer
    if len(_sides(answer)) != 1 or _BOTH.search(answer) or _SIDED_ORGAN.search(answer):
        return None
    if any(not s.asserted for s in case.sentences):
        return None
    return Change(text=swapped(answer), how={"old": answer, "new": swapped(answer), "span": [0, len(answer)]})
