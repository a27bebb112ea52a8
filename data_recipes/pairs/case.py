"""What every rule is given: a question with its true answer, and what it gives back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from medvlm.data_recipes.pairs.english import Sentence, is_english, sentences
from medvlm.data_recipes.pairs.finding_words import asserted, mentioned
from medvlm.data_recipes.pairs.pool import Entry, Pool, group_name
from medvlm.data_recipes.sample import Sample, Turn

REPORT_WORDS = 8
"""Fewest words of an answer that is read as a report."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A sample as rules read it.

    Attributes:
        turns: the conversation up to and with the last question.
        answer: its true answer.
    """

    sample: Sample
    turns: tuple[Turn, ...]
    answer: str

    @property
    def prompt(self) -> str:
        """The text of the last question."""
        return self.turns[-1].text

    @cached_property
    def english(self) -> bool:
        """Question and answer together are English; the answer alone may be too short to tell ("No")."""
        language = self.sample.metadata.get("language")
        long = len(self.answer.split()) >= REPORT_WORDS
        return is_english(self.answer if long else f"{self.prompt}\n{self.answer}", language)

    @cached_property
    def sentences(self) -> tuple[Sentence, ...]:
        return sentences(self.answer)

    @cached_property
    def is_report(self) -> bool:
        """Whether the answer describes a study: long enough, of a finding or in sentences, and a report is asked for.

        A report is asked for where a visual is shown, or the question speaks of one; an encyclopaedia's long answer to
        a question of knowledge is none.
        """
        if len(self.answer.split()) < REPORT_WORDS or not (mentioned(self.answer) or len(self.sentences) > 1):
            return False
        shown = any(turn.visuals for turn in self.turns)
        return shown or re.search(r"\b(?:reports?|findings|impression)\b", self.prompt, re.IGNORECASE) is not None

    @cached_property
    def positives(self) -> frozenset[str]:
        """Findings that the answer asserts."""
        return frozenset(key for sentence in self.sentences for key in asserted(sentence))

    @property
    def group(self) -> str:
        """Samples of one group may stand in for each other."""
        return f"{group_name(self.sample)}|{'report' if self.is_report else 'answer'}"

    @property
    def entry(self) -> Entry:
        """What the pool keeps of it."""
        return Entry(
            sample_id=self.sample.sample_id, patient_id=self.sample.patient_id, prompt=plain_prompt(self.prompt),
            answer=self.answer, report=self.is_report, positives=self.positives if self.is_report else frozenset(),
            visuals=tuple(ref for turn in self.turns for ref in turn.visuals),
        )  # fmt: skip


def case_of(sample: Sample) -> Case | None:
    """The last question of ``sample`` with its answer; None for a preference, or where there is none."""
    if sample.preference is not None:
        return None
    if sample.question is not None:
        return Case(sample=sample, turns=sample.turns, answer=sample.question.answers[0])
    if len(sample.turns) < 2 or sample.turns[-1].role != "assistant":
        return None
    return Case(sample=sample, turns=sample.turns[:-1], answer=sample.turns[-1].text)


@dataclass(frozen=True, kw_only=True)
class Change:
    """A wrong text.

    Attributes:
        text: the rejected answer.
        how: what was changed, for the metadata of the pair: old, new, span, other patient's sample, ...
    """

    text: str
    how: dict[str, Any] = field(default_factory=dict)


TextRule = Callable[[Case, np.random.Generator, Pool], Change | None]
"""A pure function: the same case, generator state and pool give the same change; None where it cannot be sure."""


def generator_for(seed: int, sample_id: str, rule: str) -> np.random.Generator:
    """What one rule draws on one sample: a function of these three alone, so that order and resuming change nothing."""
    digest = hashlib.sha256(f"{seed}/{rule}/{sample_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def plain_prompt(text: str) -> str:
    """A question without case, spaces and punctuation: what "the same question" means."""
    return " ".join(re.findall(r"\w+", text.lower()))
