"""The 14 labels of CheXpert of a report, by the rules of labeller.py.

Irvin et al. 2019, arXiv:1901.07031, define the classes and how several mentions of one are put together: present before
in doubt before absent. Which words count as which class follows the term lists of their labeller where lexicon.py does
not say otherwise (docs/labeller.md lists the differences).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

from medvlm.data_recipes.sample import Question
from medvlm.eval.scorers.finding_terms import FINDINGS
from medvlm.eval.scorers.labeller import Statement, statements
from medvlm.eval.scorers.lexicon import FINDING_OF_KIND, kind_named

NO_FINDING = "No Finding"
LABELS: tuple[str, ...] = (*FINDINGS, NO_FINDING)
FIVE = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
"""The "competition tasks" of CheXpert, that tables call F1-5."""

State = Literal["+", "-", "?", "."]
"""Present, absent, in doubt, not mentioned."""
States = str
"""One State for each of LABELS, in that order: what a row of scores.jsonl keeps."""

_STATE: dict[bool | None, State] = {True: "+", False: "-", None: "?"}
_STRONGEST = {"+": 3, "?": 2, "-": 1, ".": 0}

_ELSEWHERE = re.compile(
    r"\b(?:liver|hepatic|renal|kidneys?|adrenal|splenic|spleen|pancrea\w+|breast|thyroid|brain|intracranial|cerebral|"
    r"abdom\w+|abdominal|pelvi\w+|bladder|bowel|uter\w+|ovar\w+|prostat\w+|vertebral body lesion|epigastri\w+)\b"
)
_CHEST = re.compile(r"\b(?:lungs?|lobes?|pulmonary|pleural|chest|thora\w+|bas(?:e|es|ilar|al)|hil\w+|apex|apical)\b")
_OF_THE_CHEST = frozenset({"Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia"})


def finding_of(statement: Statement) -> str | None:
    """The label that a statement is about; None where it has none, or is about another part of the body."""
    if statement.finding in _OF_THE_CHEST and _ELSEWHERE.search(statement.about) and not _CHEST.search(statement.about):
        return None
    return statement.finding


@lru_cache(maxsize=8192)
def states_of(report: str) -> States:
    """The 14 states of ``report``. "No Finding" is present where nothing but support devices is present or in doubt, as
    in CheXpert: also of a report that says nothing; of blank text it is not mentioned."""
    found = [(finding, one.present) for one in statements(report) if (finding := finding_of(one)) is not None]
    return _together(found, blank=not report.strip())


def reference_states(question: Question) -> States:
    """Of the manifest's findings where it lists some, else of the reference text.

    Raises:
        KeyError: a finding of the manifest says not whether it is present.
    """
    if not question.findings:
        return states_of(question.answers[0])
    kinds = [(kind_named(row["kind"]), row["present"]) for row in question.findings]
    return _together(((FINDING_OF_KIND.get(kind or ""), present) for kind, present in kinds), blank=False)


def _together(found: Iterable[tuple[str | None, bool | None]], *, blank: bool) -> States:
    states: dict[str, State] = {}
    for finding, present in found:
        if finding is not None and _STRONGEST[_STATE[present]] > _STRONGEST[states.get(finding, ".")]:
            states[finding] = _STATE[present]
    ill = any(state in "+?" for finding, state in states.items() if finding != "Support Devices")
    if not ill and not blank:
        states[NO_FINDING] = "+"
    return "".join(states.get(one, ".") for one in LABELS)


def present_in(states: States, *, doubt: bool) -> frozenset[str]:
    """The labels that are present, "No Finding" among them.

    Args:
        doubt: whether what is in doubt counts as present ("uncertain as positive") or not.
    """
    wanted = "+?" if doubt else "+"
    return frozenset(one for one, state in zip(LABELS, states, strict=True) if state in wanted)
