"""From what a model wrote to the answer it gave: ordered, named rules, and None rather than a guess.

Substring tests ("no" in "normal"), nearest-choice fallbacks and random picks are the best known ways in which
medical VQA scores have been wrong; here an answer that no rule can read, or that names two choices, stays
unparsed, is marked wrong and is counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from medvlm.data_recipes.box_text import BoxForm
from medvlm.data_recipes.sample import Question
from medvlm.eval.answer_rules import DECORATION, LETTERS, closed_rules, plain_text
from medvlm.eval.box_answer import read_answer
from medvlm.eval.extract_structured import read_structured
from medvlm.eval.rows import Row, write_rows
from medvlm.eval.thinking import marked_answer, visible_answer

OPTION_LINE = re.compile(r"^\s*\(?([A-Z])[.):]\s*(\S.*?)\s*$", re.MULTILINE)
_REFUSAL = re.compile(
    r"(?:\b(?:can ?not|can't|could not|couldn't|unable to|not able to|impossible to|not possible to)\s+(?:\w+\s+){0,3}?"
    r"(?:determine|tell|answer|assess|see|view|say|identify|evaluate|interpret|provide|diagnose|comment|know)\b"
    r"|\b(?:do not|don't) know\b|\binsufficient information\b|\bnot enough information\b|无法(?:判断|确定|回答))",
    re.IGNORECASE,
)
"""The model says that it cannot tell. Only looked for where no rule found an answer."""


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What was read from one answer.

    Attributes:
        value: closed and choice: the choice, spelt as in ``options``; open and report: the cleaned text; box: the
            box in our own form. None when no rule could read an answer.
        rule: the rule that decided, or why there is no value: "empty", "thinking_cut_off", "conflict", "unparsed",
            "refused" (the model says that it cannot tell; an open answer that only says so keeps its text), for a box
            a Reason of data_recipes.box_text.
        n_candidates: distinct answers that the deciding rule found; 2 or more is a conflict.
    """

    value: str | None
    rule: str
    n_candidates: int


def options(question: Question, prompt: str = "") -> tuple[str, ...]:
    """The choices of ``question`` as lower-case texts, in the order shown.

    Where the manifest lists bare letters, their texts are looked up in the lettered lines of ``prompt``; without
    such lines the letters themselves are the texts.
    """
    texts = _listed(tuple(question.choices))
    if texts is not None:
        return texts
    lines = dict(OPTION_LINE.findall(prompt))
    return tuple(plain_text(lines.get(letter, letter)) for letter in LETTERS[: len(question.choices)])


@lru_cache(maxsize=4096)
def _listed(choices: tuple[str, ...]) -> tuple[str, ...] | None:
    """The texts of ``choices``; None where they are bare letters. Many questions of a task have the same choices."""
    shown = [choice.strip() for choice in choices]
    letters = list(LETTERS[: len(shown)])
    if shown == letters:
        return None
    matched = [OPTION_LINE.fullmatch(choice) for choice in shown]
    if all(m is not None and m[1] == letter for m, letter in zip(matched, letters, strict=True)):
        return tuple(plain_text(m[2]) for m in matched if m is not None)
    return _plain_choices(choices)


@lru_cache(maxsize=4096)
def _plain_choices(choices: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(plain_text(choice) for choice in choices)


def choice_index(question: Question, answer: str, prompt: str = "") -> int | None:
    """Which choice a reference answer is: of lettered choices by its letter, else by its text, with or without letter.

    The letter comes first: choices may read "D", "E", "C", "B", "A" (parts of a figure), where "B" is the second.
    """
    plain = plain_text(answer)
    if question.kind == "choice" and plain.upper() in tuple(LETTERS[: len(question.choices)]):
        return LETTERS.index(plain.upper())
    for texts in (_plain_choices(tuple(question.choices)), options(question, prompt)):
        if plain in texts:
            return texts.index(plain)
    return None


def extract(question: Question, text: str, prompt: str = "", box_form: BoxForm = "box") -> Extraction:
    """Read the answer to ``question`` out of ``text``.

    Args:
        text: as the model wrote it.
        prompt: the text of the question as asked; gives lettered options their texts and lets "There is no
            pneumothorax." answer "Is there a pneumothorax?".
        box_form: how the model writes boxes.
    """
    answer = visible_answer(text)
    if answer is None:
        return Extraction(value=None, rule="thinking_cut_off", n_candidates=0)
    tagged = marked_answer(answer)
    if tagged is not None:
        answer = tagged
    if not plain_text(answer):
        return Extraction(value=None, rule="empty", n_candidates=0)
    if question.kind in ("open", "report"):
        rule = (
            "refused" if question.kind == "open" and _only_refuses(answer) else "tag" if tagged is not None else "text"
        )
        return Extraction(value=answer, rule=rule, n_candidates=1)
    if question.kind == "box":
        read = read_answer(question, answer, box_form)
        return Extraction(value=read.text, rule=read.reason or "box", n_candidates=read.count)
    if question.kind in ("labels", "span", "json"):
        value, rule, count = read_structured(question, answer)
        return Extraction(value=value, rule=rule, n_candidates=count)
    texts = options(question, prompt)
    answer = " ".join(DECORATION.sub("", answer).split(" ")).strip()
    for rule, found in closed_rules(question, texts, answer, prompt):
        if len({texts[place] for place in found}) == 1:  # two choices that read the same are one answer
            return Extraction(value=texts[found.pop()], rule=rule, n_candidates=1)
        if found:
            return Extraction(value=None, rule="conflict", n_candidates=len(found))
    return Extraction(value=None, rule="refused" if _REFUSAL.search(answer) else "unparsed", n_candidates=0)


def _only_refuses(answer: str) -> bool:
    """One sentence that says that the model cannot tell, and nothing of what is there or not there."""
    plain = answer.strip().rstrip(".!")
    return (
        _REFUSAL.search(plain) is not None
        and re.search(r"[.!?\n]\s", plain) is None
        and re.search(r"\b(?:because|since|as there|no|without|but)\b", plain, re.IGNORECASE) is None
    )


def extract_rows(
    responses: Sequence[Row], asked: Mapping[str, tuple[Question, str]], out: Path, box_form: BoxForm = "box"
) -> list[Row]:
    """The extract stage: one row per response into ``out``/extractions.jsonl, replaced whole.

    Args:
        responses: rows of responses.*.jsonl.
        asked: request_id -> (question, its text as asked).
        box_form: how the model writes boxes.
    """
    rows: list[Row] = []
    for response in responses:
        question, prompt = asked[response["request_id"]]
        result = extract(question, response["text"], prompt, box_form)
        rows.append(
            {
                "request_id": response["request_id"],
                "value": result.value,
                "rule": result.rule,
                "n_candidates": result.n_candidates,
            }
        )
    write_rows(out / "extractions.jsonl", rows)
    return rows
