"""Another letter for the letter of a choice."""

from __future__ import annotations

import re

import numpy as np

from medvlm.data_recipes.pairs.case import Case, Change
from medvlm.data_recipes.pairs.english import same_text
from medvlm.data_recipes.pairs.pool import Pool

_OPTION = re.compile(r"^\s*\(?([A-Z])[.):]\s+(\S.*?)\s*$", re.MULTILINE)
_ALL = re.compile(r"\b(?:all|both|none|neither|either) of\b|\b(?:all|none|any) (?:the )?above\b", re.I)


def other_choice(case: Case, rng: np.random.Generator, pool: Pool) -> Change | None:
    """Another lettered option of the question, in the form of the answer: letter, text, or both; any language.

    Nothing where an option speaks of the others ("all of the above") or two options say the same.
    """
    options = dict(_OPTION.findall(case.prompt))
    texts = list(options.values())
    if len(options) < 2 or any(_ALL.search(text) for text in texts):
        return None
    if any(same_text(a, b) for place, a in enumerate(texts) for b in texts[:place]):
        return None
    answer = case.answer.strip()
    match = re.fullmatch(r"(\(?)([A-Z])([.):]*)(?:\s+(\S.*))?", answer, re.DOTALL)
    letter = match[2] if match and match[2] in options else None
    if letter is None:
        letter = next((name for name, text in options.items() if same_text(text, answer)), None)
        match = None
    if letter is None or (match and match[4] and not same_text(match[4], options[letter])):
        return None
    others = sorted(set(options) - {letter})
    new = others[int(rng.integers(len(others)))]
    if match is None:
        text = options[new]
    else:
        text = f"{match[1]}{new}{match[3]}" + (f" {options[new]}" if match[4] else "")
    return Change(text=text, how={"old": letter, "new": new})
