"""The table of text rules, and a pair from a case and a rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from medvlm.data_recipes.pairs.boxes import shifted_box
from medvlm.data_recipes.pairs.case import Case, TextRule, case_of, generator_for
from medvlm.data_recipes.pairs.choices import other_choice
from medvlm.data_recipes.pairs.english import same_text
from medvlm.data_recipes.pairs.invention import invented_finding
from medvlm.data_recipes.pairs.negation import negation_flip, yes_no_flip
from medvlm.data_recipes.pairs.numbers import number_change
from medvlm.data_recipes.pairs.omission import omitted_finding
from medvlm.data_recipes.pairs.other_report import other_report
from medvlm.data_recipes.pairs.pool import Pool
from medvlm.data_recipes.pairs.severity import severity_swap
from medvlm.data_recipes.pairs.sides import side_flip
from medvlm.data_recipes.sample import Preference, Sample, Turn

VERSION = 1
"""Raised whenever a rule gives another text for the same sample and seed."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A text rule with its name, as ``made_by`` gives it, and what it does."""

    name: str
    apply: TextRule
    about: str


RULES: tuple[Rule, ...] = (
    Rule(name="yes_no_flip", apply=yes_no_flip, about="yes <-> no"),
    Rule(name="negation_flip", apply=negation_flip, about="a statement becomes its contrary"),
    Rule(name="side_flip", apply=side_flip, about="left <-> right"),
    Rule(name="severity_swap", apply=severity_swap, about="mild <-> severe, small <-> large, acute <-> chronic"),
    Rule(name="number_change", apply=number_change, about="another size, percentage or count"),
    Rule(name="omitted_finding", apply=omitted_finding, about="a finding is left out of the report"),
    Rule(name="invented_finding", apply=invented_finding, about="a finding of another patient is added to the report"),
    Rule(name="other_report", apply=other_report, about="the report of another patient"),
    Rule(name="other_choice", apply=other_choice, about="another letter"),
    Rule(name="shifted_box", apply=shifted_box, about="the box in another place"),
)


def pair_sample(case: Case, name: str, preference: Preference, how: dict[str, Any]) -> Sample:
    """A training sample of one preference; ``how`` stands in ``metadata["pair"]``."""
    return replace(
        case.sample,
        sample_id=f"{case.sample.sample_id}/{name}",
        turns=case.turns,
        question=None,
        preference=preference,
        metadata={
            **case.sample.metadata,
            "pair": {"rule": name, "version": VERSION, "of": case.sample.sample_id, **how},
        },
    )


def text_pair(case: Case, rule: Rule, pool: Pool, seed: int = 0) -> Sample | None:
    """The pair of one rule; None where it does not apply or changes nothing that counts."""
    change = rule.apply(case, generator_for(seed, case.sample.sample_id, rule.name), pool)
    if change is None or not change.text.strip() or same_text(change.text, case.answer):
        return None
    preference = Preference(
        chosen=(Turn(role="assistant", content=(case.answer,)),),
        rejected=(Turn(role="assistant", content=(change.text,)),),
        made_by=rule.name,
    )
    return pair_sample(case, rule.name, preference, change.how)


def rule_pairs(sample: Sample, pool: Pool | None = None, seed: int = 0) -> Iterator[Sample]:
    """One pair for each text rule that applies to the last answer of ``sample``; none when none applies.

    Args:
        pool: what other patients' samples say; without it the rules that need others give nothing.
    """
    case = case_of(sample)
    if case is None:
        return
    for rule in RULES:
        pair = text_pair(case, rule, pool or Pool(), seed)
        if pair is not None:
            yield pair
