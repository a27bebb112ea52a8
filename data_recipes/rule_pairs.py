"""Preference pairs from true answers: one rule makes one thing wrong, and ``made_by`` names the rule.

As in the hallucination pairs of POVID (Zhou et al. 2024) and MMedPO (Zhu et al. 2024) the chosen side is the true
answer and the rejected one is made from it; here by rules, so that what is wrong is known. The rules read English.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from medvlm.data_recipes.sample import Preference, Sample, Turn

_YES_NO = {"yes": "no", "no": "yes"}
_SIDE = {"left": "right", "right": "left"}
_SIDE_WORD = re.compile(r"\b(left|right)\b", re.IGNORECASE)
_NO_SIDE = re.compile(r"\ball right\b|\bright (?:now|away|after|before|angles?)\b|\b(?:is|was|are|were) left\b", re.I)
_NEGATIONS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b(there (?:is|are|was|were)) no\b", re.I), r"\1"),
    (re.compile(r"\b(there (?:is|are|was|were)) (?!no\b|not\b)(?:an? )?", re.I), r"\1 no "),
    (re.compile(r"\b(is|are|was|were) not (seen|identified|present|visible|noted|enlarged)\b", re.I), r"\1 \2"),
    (re.compile(r"\b(is|are|was|were) (seen|identified|present|visible|noted|enlarged)\b", re.I), r"\1 not \2"),
    (re.compile(r"(?:(?<=^)|(?<=[.!?]\s)|(?<=\n))No (\w)"), r"There is \1"),
    (re.compile(r"\bwithout\b"), "with"),
)


def _like(word: str, model: str) -> str:
    return word.upper() if model.isupper() else word.capitalize() if model[0].isupper() else word


def yes_no_flip(answer: str) -> str | None:
    """ "yes" <-> "no", of an answer that is nothing else."""
    found = re.fullmatch(r"\s*(yes|no)(\W*)", answer, re.IGNORECASE)
    return _like(_YES_NO[found[1].lower()], found[1]) + found[2] if found else None


def side_flip(answer: str) -> str | None:
    """Every "left" <-> "right", of an answer that speaks of one side only; "right now" and the like are no sides."""
    sides = {word.lower() for word in _SIDE_WORD.findall(answer)}
    if len(sides) != 1 or _NO_SIDE.search(answer):
        return None
    return _SIDE_WORD.sub(lambda found: _like(_SIDE[found[1].lower()], found[1]), answer)


def negation_flip(answer: str) -> str | None:
    """The first statement that a rule knows becomes its contrary: "There is no nodule" <-> "There is nodule"."""
    found = [(match.start(), order) for order, (rule, _) in enumerate(_NEGATIONS) if (match := rule.search(answer))]
    if not found:
        return None
    rule, change = _NEGATIONS[min(found)[1]]
    return rule.sub(change, answer, count=1)


RULES: tuple[Callable[[str], str | None], ...] = (yes_no_flip, side_flip, negation_flip)


def rule_pairs(sample: Sample) -> Iterator[Sample]:
    """One pair for each rule that applies to the last answer of a training sample; none when none applies."""
    last = sample.turns[-1]
    if sample.preference is not None or last.role != "assistant":
        return
    for rule in RULES:
        wrong = rule(last.text)
        if wrong is not None and wrong != last.text:
            yield replace(
                sample,
                sample_id=f"{sample.sample_id}/{rule.__name__}",
                turns=sample.turns[:-1],
                preference=Preference(
                    chosen=(last,),
                    rejected=(Turn(role="assistant", content=(wrong,)),),
                    made_by=rule.__name__,
                ),
            )
