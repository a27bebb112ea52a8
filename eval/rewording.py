"""The same question otherwise: its choices in another order, or in other words. The right answer stays right."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from medvlm.data_recipes.sample import Question, Turn
from medvlm.eval.answer_rules import LETTERS
from medvlm.eval.extract import OPTION_LINE, choice_index

Asked = tuple[tuple[Turn, ...], Question]

_RULES: tuple[tuple[str, str], ...] = (
    (
        r"^is there (?:an? |any )?(?:evidence of |sign of |signs of )?(.+?) (?:present|seen|visible)?(?: ?)in (.+?)\?",
        r"Does {2} show {1}?",
    ),
    (r"^is there (an? |any )?(.+?)\?", r"Can {1}{2} be seen?"),
    (r"^are there (any )?(.+?)\?", r"Can {1}{2} be seen?"),
    (r"^what is the (.+?)\?", r"Name the {1}."),
    (r"^what (imaging )?modality (.+?)\?", r"Name the {1}modality that {2}."),
    (r"^on which side (?:is|are) (.+?)\?", r"{1}: which side?"),
    (r"^how many (.+?) (?:are|can be) (.+?)\?", r"State the number of {1} that are {2}."),
    (r"^write (?:a|the) report(.*)", r"Report what you see{1}"),
)
"""(start of a question in lower case, other words for it); the first that fits."""

_ABOUT_OTHERS = re.compile(
    r"\b(?:above|below)\b|\b[A-J] (?:and|or) [A-J]\b|\b(?:all|none|both) of (?:these|them)\b", re.I
)

WRAPPED = "Please look carefully and answer the following. {}"
"""For a question that no rule fits."""


def rotations(turns: Sequence[Turn], question: Question) -> list[Asked] | str:
    """The question with its choices moved on by 1, 2, ... places (circular evaluation; Liu et al., MMBench, ECCV 2024).

    Returns:
        One per rotation but the first, or why there is none.
    """
    if question.kind != "choice":
        return "has no choices whose order could change"
    count = len(question.choices)
    prompt = turns[-1].text
    lines = [match for match in OPTION_LINE.finditer(prompt) if match[1] in LETTERS[:count]]
    place = choice_index(question, question.answers[0], prompt)
    if [match[1] for match in lines] != list(LETTERS[:count]) or place is None or len(question.answers) != 1:
        return "its choices do not stand in the question as lettered lines"
    texts = [match[2] for match in lines]
    if any(_ABOUT_OTHERS.search(text) for text in texts):
        return "a choice speaks of the others by their place"
    if len(set(texts)) != count:
        return "two of its choices read the same"
    found: list[Asked] = []
    for shift in range(1, count):
        moved = [texts[(number + shift) % count] for number in range(count)]
        asked = prompt
        for match, text in reversed(list(zip(lines, moved, strict=True))):
            asked = asked[: match.start(2)] + text + asked[match.end(2) :]
        letter = LETTERS[(place - shift) % count]
        found.append((_asking(turns, asked), replace(question, choices=tuple(moved), answers=(letter,))))
    return found


def paraphrase(turns: Sequence[Turn], question: Question) -> Asked:
    """The question in other words, by the first rule that fits its beginning; what follows (choices) stays."""
    prompt = turns[-1].text
    for pattern, words in _RULES:
        match = re.match(pattern, prompt, re.IGNORECASE)
        if match:
            said = words
            for number, part in enumerate(match.groups(), start=1):
                said = said.replace(f"{{{number}}}", part or "")
            return _asking(turns, said[0].upper() + said[1:] + prompt[match.end() :]), question
    return _asking(turns, WRAPPED.format(prompt)), question


def _asking(turns: Sequence[Turn], prompt: str) -> tuple[Turn, ...]:
    """``turns`` whose last one shows the same visuals and asks ``prompt``."""
    last = turns[-1]
    return (*turns[:-1], replace(last, content=(*last.visuals, prompt)))
