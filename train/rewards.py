"""What a written answer is worth, by rules that anyone can check: each a number from 0 to 1, with a weight.

Every reward reads the answer by ``eval.extract`` and marks it by the scorers of evaluation: what a training raises is
what an evaluation counts. An answer that no rule can read is worth 0 and is counted as unread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from medvlm.data_recipes.pairs.case import case_of
from medvlm.data_recipes.sample import Question, QuestionKind, Sample, Turn
from medvlm.eval.answer_scores import question_of, score
from medvlm.eval.extract import Extraction, extract
from medvlm.eval.scorers.choice import is_correct
from medvlm.eval.scorers.findings import count_findings
from medvlm.eval.scorers.grounding import score_box
from medvlm.eval.scorers.short_answer import exact_match, token_f1

_ANSWERED = r"<answer>(?:(?!</?answer>|</?think>).)+</answer>"
_FORMATS = {
    True: re.compile(rf"\s*(?:<think>)?(?:(?!</?answer>|</?think>).)+</think>\s*{_ANSWERED}\s*", re.DOTALL),
    False: re.compile(rf"\s*{_ANSWERED}\s*", re.DOTALL),
}
"""With and without thinking. Some chat templates open the thought in the prompt: only its end is then in the answer."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a sample asks.

    Attributes:
        turns: the conversation up to the question.
        prompt: the text of the question.
    """

    turns: tuple[Turn, ...]
    question: Question
    prompt: str


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One answer to be marked.

    Attributes:
        text: as it was written.
        read: what the rules of extraction made of it.
        tokens: how many it has, of at most ``room``.
    """

    asked: Asked
    text: str
    read: Extraction
    tokens: int
    room: int
    thinking: bool


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What one answer is worth.

    Attributes:
        reward: the weighted sum.
        parts: reward -> its value before weighting; None where it has nothing to say of this kind of question.
        unread: no rule could read an answer.
    """

    reward: float
    parts: Mapping[str, float | None]
    unread: bool


def asked_of(sample: Sample) -> Asked | None:
    """The question of a sample: its own, or the last turn that an assistant has answered; None of a preference."""
    case = case_of(sample)
    if case is None:
        return None
    return Asked(turns=case.turns, question=question_of(case), prompt=case.prompt)


def _answer(a: Answered) -> float | None:
    """By the kind of question: right or wrong, token F1, findings, or overlap of boxes."""
    return score(a.asked.question, a.text, a.asked.prompt)


def _choice(a: Answered) -> float | None:
    if a.asked.question.kind not in ("closed", "choice"):
        return None
    return float(is_correct(a.asked.question, a.read.value, a.asked.prompt))


def _exact(a: Answered) -> float | None:
    return exact_match(a.read.value or "", a.asked.question.answers) if a.asked.question.kind == "open" else None


def _short_answer(a: Answered) -> float | None:
    return token_f1(a.read.value or "", a.asked.question.answers) if a.asked.question.kind == "open" else None


def _findings(a: Answered) -> float | None:
    """F1 of the positive findings (kind and side); of a reference without any, 1 when the answer has none either and
    keeps a denial. None where the reference states nothing that the labeller knows."""
    if a.asked.question.kind != "report":
        return None
    counts = count_findings(a.asked.question, a.read.value or "")
    if not counts.hits + counts.missed + counts.negations:
        return None
    if not counts.hits + counts.missed:
        return float(not counts.invented) * counts.negations_kept / counts.negations
    return 2 * counts.hits / (2 * counts.hits + counts.invented + counts.missed)


def _box(a: Answered) -> float | None:
    return float(score_box(a.asked.question, a.read.value).iou) if a.asked.question.kind == "box" else None


def _format(a: Answered) -> float:
    return float(_FORMATS[a.thinking].fullmatch(a.text) is not None)


def _brevity(a: Answered) -> float:
    """1 for no token, 0 for all that there is room for: a penalty of length, as a reward."""
    return 1 - a.tokens / a.room


REWARDS: Mapping[str, Callable[[Answered], float | None]] = {
    "answer": _answer, "choice": _choice, "exact": _exact, "short_answer": _short_answer, "findings": _findings,
    "box": _box, "format": _format, "brevity": _brevity,
}  # fmt: skip
"""Name -> rule. None: the rule does not apply to the question."""

_OF_FORM = ("format", "brevity")
"""These say nothing of whether an answer is right."""


def mark(asked: Asked, text: str, *, rewards: Mapping[str, float], tokens: int, room: int, thinking: bool) -> Mark:
    """What ``text`` is worth as an answer.

    Args:
        rewards: name -> weight.
        tokens: of the answer, out of ``room``.
        thinking: the form that "format" asks for.
    """
    read = extract(asked.question, text, asked.prompt)
    answered = Answered(asked=asked, text=text, read=read, tokens=tokens, room=room, thinking=thinking)
    parts: dict[str, float | None] = {}
    for name in rewards:
        value = REWARDS[name](answered)
        # A scorer may find some worth in an empty answer (a normal report denies nothing wrongly): unread is 0.
        parts[name] = 0.0 if value is not None and read.value is None and name not in _OF_FORM else value
    total = sum(weight * value for name, weight in rewards.items() if (value := parts[name]) is not None)
    return Mark(reward=total, parts=parts, unread=read.value is None)


def why_not_marked(asked: Asked, rewards: Mapping[str, float]) -> str | None:
    """Why no reward can tell a right answer to this question from a wrong one; None when one can.

    Raises:
        ValueError: the reference answer is none of the choices.
    """
    reference = asked.question.answers[0]
    marked = mark(asked, reference, rewards=rewards, tokens=0, room=1, thinking=True)
    content = {name: value for name, value in marked.parts.items() if name not in _OF_FORM}
    # What is left out is logged: of a report no more than its length.
    free = asked.question.kind in ("open", "report")
    answer = f"answer of {len(reference)} characters" if free else f"answer {reference!r:.60}"
    if content and all(value is None for value in content.values()):
        kinds: QuestionKind = asked.question.kind
        return f"none of the rewards {', '.join(content)} can mark a {kinds} question with the {answer}"
    if content and max(value for value in content.values() if value is not None) == 0:
        return f"the reference {answer} itself is worth nothing"
    return None
