"""What a sampled answer is worth, and which two of several make a pair."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from medvlm.data_recipes.asking import YES_NO
from medvlm.data_recipes.box_text import read_box
from medvlm.data_recipes.pairs.case import Case
from medvlm.data_recipes.pairs.english import same_text
from medvlm.data_recipes.sample import Question
from medvlm.eval.extract import extract
from medvlm.eval.scorers.choice import is_correct
from medvlm.eval.scorers.findings import count_findings
from medvlm.eval.scorers.grounding import score_box
from medvlm.eval.scorers.short_answer import token_f1


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How answers are drawn and pairs are chosen.

    Attributes:
        answers: sampled for each question.
        temperature, top_p: of the decoding; top_p 1 leaves the distribution whole.
        margin: least difference of the scores of chosen and rejected.
        least_chosen: least score of the chosen answer: the best of bad answers is nothing to prefer.
        with_reference: the reference answer may be chosen where no sampled one is as good.
    """

    answers: int = 4
    temperature: float = 1.0
    top_p: float = 1.0
    margin: float = 0.3
    least_chosen: float = 0.5
    with_reference: bool = False

    def __post_init__(self) -> None:
        if self.answers < 2 and not self.with_reference:
            raise ValueError(f"{self.answers} answers give no pair; draw at least 2, or allow the reference")
        if self.answers < 1 or self.temperature <= 0 or not 0 < self.top_p <= 1:
            raise ValueError("sampling needs at least 1 answer, a temperature above 0 and top_p in (0, 1]")
        if not 0 < self.margin <= 1 or not 0 <= self.least_chosen <= 1:
            raise ValueError("margin lies in (0, 1] and least_chosen in [0, 1]: scores run from 0 to 1")


_OPTION = re.compile(r"^\s*\(?([A-Z])[.):]\s+(\S.*?)\s*$", re.MULTILINE)


def question_of(case: Case) -> Question:
    """The question of a training sample, whose form its answer and prompt tell; the sample's own where it has one."""
    if case.sample.question is not None:
        return case.sample.question
    answer, options = case.answer.strip(), dict(_OPTION.findall(case.prompt))
    if answer.lower().strip(".") in YES_NO:
        return Question(kind="closed", answers=(answer.lower().strip("."),), choices=YES_NO)
    if len(options) > 1 and answer.rstrip(".") in options:
        letters = tuple(options)
        return Question(kind="choice", answers=(answer.rstrip("."),), choices=letters)
    boxes = re.findall(r"<box>[^<]*</box>", answer, re.IGNORECASE)
    if len(boxes) == 1 and same_text(boxes[0], answer):
        axes = 3 if boxes[0].count(",") == 5 else 2
        if read_box(boxes[0], axes=axes).box is not None:
            return Question(kind="box", answers=(boxes[0],))
    return Question(kind="report" if case.is_report else "open", answers=(case.answer,))


def score(question: Question, text: str, prompt: str) -> float | None:
    """The score of an answer from 0 to 1; None where the reference says nothing that can be scored.

    A report: (positive findings that agree in kind and side + denials that are kept) over all that either text asserts
    and all that the reference denies.
    """
    value = extract(question, text, prompt).value
    match question.kind:
        case "closed" | "choice":
            return float(is_correct(question, value, prompt))
        case "open":
            return token_f1(value or "", question.answers)
        case "box":
            return float(score_box(question, value).iou)
    counts = count_findings(question, value or "")
    asked = counts.hits + counts.missed + counts.negations
    total = asked + counts.invented
    return (counts.hits + counts.negations_kept) / total if asked else None


def choose(
    reference: str, answers: Sequence[str], scores: Sequence[float | None], whole: Sequence[bool], how: Sampling
) -> tuple[str, str] | None:
    """(chosen, rejected): the best and the worst of the answers, where they are far enough apart.

    Of equals the shortest is chosen: extraction finds the "yes" in a rambling answer too. For the same reason
    an answer that was cut off is never chosen.

    Args:
        whole: which answers ended by themselves.
    """
    rated = [
        (mark, text, ended)
        for mark, text, ended in zip(scores, answers, whole, strict=True)
        if mark is not None and text
    ]
    if not rated:
        return None
    worst, rejected, _ = min(rated, key=lambda one: one[0])
    best, chosen, _ = max(
        (one for one in rated if one[2]), key=lambda one: (one[0], -len(one[1])), default=(0.0, "", 0)
    )
    if how.with_reference and best < 1:
        best, chosen = 1.0, reference
    if best - worst < how.margin or best < how.least_chosen or not chosen or same_text(chosen, rejected):
        return None
    return chosen, rejected
