"""How severe or large a report says that a finding is, in four grades."""

from __future__ import annotations

import re

from medvlm.eval.scorers.labeller import Statement, statements

GRADES: tuple[tuple[float, str], ...] = (
    (1, r"minimal(?:ly)?|trace|tin(?:y|iest)|trivial|slight(?:ly)?|subtle|minute|scant|faint|minor"),
    (2, r"mild(?:ly)?|small|little"),
    (3, r"moderate(?:ly)?|medium"),
    (4, r"severe(?:ly)?|large|marked(?:ly)?|massive(?:ly)?|extensive(?:ly)?|gross(?:ly)?|huge|substantial(?:ly)?"),
)
"""(grade, words). "small" and "large" are grades of how much there is; of a nodule they say the same of its size."""

_GRADES = tuple((grade, re.compile(rf"\b(?:{words})\b")) for grade, words in GRADES)
_BREAK = re.compile(r"[,;]|\b(?:and|with|but|or|no|without)\b")
_SAID_AFTER = re.compile(r"^ (?:is|are|was|were|appears?|remains?|has|have)\b[^,;]*")
_TO = re.compile(r"(?:mild|moderate|small|minimal|slight)(?:ly)?[- ](?:to|-)[- ](?:moderate|severe|large|mild)(?:ly)?")


def grade_of(statement: Statement) -> float | None:
    """The grade right before the name, in it or said after it ("is small"); between two for "mild to moderate"."""
    before = _BREAK.split(statement.sentence[statement.first : statement.start])[-1]
    after = _SAID_AFTER.match(statement.sentence[statement.end : statement.last])
    words = f"{before}{statement.sentence[statement.start : statement.end]}"
    return _grade(words) if _grade(words) is not None else _grade(after[0] if after else "")


def _grade(words: str) -> float | None:
    found = [(match.start(), grade) for grade, pattern in _GRADES for match in pattern.finditer(words)]
    if not found:
        return None
    if _TO.search(words) and len(found) > 1:
        return sum(grade for _, grade in found[:2]) / 2
    return max(found)[1]


def grades(report: str) -> dict[str, float | None]:
    """Finding (of CheXpert, else its kind) that is present -> its highest grade, None where none is said."""
    found: dict[str, float | None] = {}
    for one in statements(report):
        if one.present is not True:
            continue
        name, grade = one.finding or one.kind, grade_of(one)
        known = found.get(name)
        found[name] = grade if known is None else max(known, grade) if grade is not None else known
    return found
