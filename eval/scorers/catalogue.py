"""Every scorer, by name. The kind of a question decides which of them mark its answer."""

from __future__ import annotations

from medvlm.eval.metric import Metric, Scorer
from medvlm.eval.scorers import (
    choice,
    clinical,
    findings,
    grounding,
    judge,
    learned,
    lexical,
    report_text,
    short_answer,
    structured,
    together,
)

SCORERS: tuple[Scorer, ...] = (
    *choice.SCORERS,
    *short_answer.SCORERS,
    *together.SCORERS,
    *structured.SCORERS,
    *grounding.SCORERS,
    *report_text.SCORERS,
    *lexical.SCORERS,
    *findings.SCORERS,
    *clinical.SCORERS,
    *learned.SCORERS,
    *judge.SCORERS,
)

METRICS: dict[str, tuple[Scorer, Metric]] = {metric.name: (one, metric) for one in SCORERS for metric in one.metrics}


def scorer(name: str) -> Scorer:
    """The scorer called ``name``.

    Raises:
        ValueError: there is none; names those there are.
    """
    for one in SCORERS:
        if one.name == name:
            return one
    raise ValueError(f"no scorer {name!r}; there are {', '.join(one.name for one in SCORERS)}")
