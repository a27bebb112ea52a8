"""Another size or another count: far enough that it can be seen on the image, in the same unit and form."""

from __future__ import annotations

import re

import numpy as np

from medvlm.data_recipes.pairs.case import Case, Change
from medvlm.data_recipes.pairs.english import Sentence, put
from medvlm.data_recipes.pairs.pool import Pool

FACTORS = (0.4, 0.5, 2.0, 2.5, 3.0)
LEAST_MM, MOST_MM = 5.0, 400.0
"""A changed length differs by at least so many millimetres and is no longer than a body is wide."""
LEAST_PERCENT = 25

_NUMBER = r"\d{1,3}(?:\.\d{1,2})?"
_UNIT = r"mm|cm|millimet(?:er|re)s?|centimet(?:er|re)s?"
_LENGTH = re.compile(rf"(?<![\w./-])({_NUMBER}(?:\s*(?:mm|cm)?\s*[x×]\s*{_NUMBER}){{0,2}})([\s-]*)({_UNIT})\b", re.I)
_PERCENT = re.compile(r"(?<![\w./-])(\d{1,3})(\s?)(%|percent\b)", re.I)
_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_COUNTED = (
    r"nodules|masses|lesions|fractures|opacities|cysts|stones|calculi|polyps|"
    r"metastases|granulomas|densities|infarcts|"
    r"h(?:a)?ematomas|nodes|stents|clips|drains|tubes|catheters|leads|foci|ulcers|aneurysms|calcifications"
)
_COUNT = re.compile(
    rf"(?<![\w./-])({'|'.join(_WORDS[1:])}|[2-9]|1\d)(\s+(?:(?!of\b|to\b|and\b|"
    rf"or\b|cm\b|mm\b|more\b)[a-z-]+\s+){{0,3}}?)({_COUNTED})\b",
    re.I,
)
_BOUND = re.compile(
    r"(?:less than|greater than|more than|smaller than|larger than|up to|at least|"
    r"at most|under|over|within|below|above|every|[<>≤≥]=?|\bto|-|–)\s*$",
    re.I,
)
_TECHNIQUE = re.compile(
    r"\b(?:slices?|thickness|collimation|contrast|kvp?|mas|dose|reconstruct\w+|"
    r"increments?|intervals|images?|views?|sequences?|matrix|field of view|criteria|"
    r"protocol)\b",
    re.I,
)


def number_change(case: Case, rng: np.random.Generator, pool: Pool) -> Change | None:
    """One length, percentage or count becomes clearly another one, everywhere it is said.

    Levels ("L4/5", "T2"), dates, doses, ages and scores carry no unit of length and are not touched; neither are bounds
    ("less than 5 mm"), what is denied, and what describes how the images were made.
    """
    if not case.english:
        return None
    ways = [way for sentence in case.sentences for way in _in_sentence(sentence)] or _bare_count(case)
    if not ways:
        return None
    kind, start, end, old = ways[int(rng.integers(len(ways)))]
    new = {"length": _length, "percent": _percent, "count": _count}[kind](old, rng)
    if new is None or new == old:
        return None
    spots = [(a, b) for k, a, b, said in ways if k == kind and said == old] or [(start, end)]
    text = case.answer
    for a, b in sorted(spots, reverse=True):
        text = put(text, a, b, new)
    return Change(text=text, how={"kind": kind, "old": old, "new": new, "spans": [list(spot) for spot in spots]})


def _in_sentence(sentence: Sentence) -> list[tuple[str, int, int, str]]:
    """(kind, start, end in the answer, text) of each number that may be changed."""
    if not sentence.asserted or _TECHNIQUE.search(sentence.text):
        return []
    said, found = sentence.said, []
    for kind, pattern, last in (("length", _LENGTH, 3), ("percent", _PERCENT, 3), ("count", _COUNT, 1)):
        for match in pattern.finditer(said):
            if not _BOUND.search(said[: match.start()]):
                found.append(
                    (
                        kind,
                        sentence.start + match.start(),
                        sentence.start + match.end(last),
                        said[match.start() : match.end(last)],
                    )
                )
    return found


def _bare_count(case: Case) -> list[tuple[str, int, int, str]]:
    """The answer to "how many?" when it is a number alone."""
    answer = case.answer.strip().rstrip(".")
    asked = re.search(r"\bhow many\b", case.prompt, re.I)
    if not asked or not (answer.lower() in _WORDS or re.fullmatch(r"[1-9]|1\d|20", answer)):
        return []
    start = case.answer.index(answer)
    return [("count", start, start + len(answer), answer)]


def _length(old: str, rng: np.random.Generator) -> str | None:
    match = _LENGTH.fullmatch(old)
    if match is None:
        return None
    mm = 1.0 if match[3].lower().startswith(("mm", "milli")) else 10.0
    values = [float(number) for number in re.findall(_NUMBER, match[1])]
    if min(values) <= 0:
        return None
    largest = max(values) * mm
    factors = [f for f in FACTORS if abs(f - 1) * largest >= LEAST_MM and 1 < f * largest <= MOST_MM]
    if not factors:
        return None
    factor = factors[int(rng.integers(len(factors)))]

    def scaled(number: re.Match[str]) -> str:
        decimals = len(number[0].partition(".")[2])
        value = float(number[0]) * factor
        if round(value, decimals) == 0:
            decimals += 1
        return f"{value:.{decimals}f}"

    return re.sub(_NUMBER, scaled, match[1]) + match[2] + match[3]


def _percent(old: str, rng: np.random.Generator) -> str | None:
    match = _PERCENT.fullmatch(old)
    if match is None or int(match[1]) > 100:
        return None
    value = int(match[1])
    others = [other for other in range(5, 100, 5) if abs(other - value) >= LEAST_PERCENT]
    return f"{others[int(rng.integers(len(others)))]}{match[2]}{match[3]}"


def _count(old: str, rng: np.random.Generator) -> str | None:
    word = old.lower() in _WORDS
    value = _WORDS.index(old.lower()) + 1 if word else int(old)
    step = max(2, -(-value // 2))
    others = [n for n in (value - step, value + step, value + step + 1) if 2 <= n <= (10 if word else 25)]
    if not others:
        return None
    new = others[int(rng.integers(len(others)))]
    if not word:
        return str(new)
    return _WORDS[new - 1].capitalize() if old[0].isupper() else _WORDS[new - 1]
