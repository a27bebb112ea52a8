"""The one number that stands for each kind of question where only one can: subgroups, comparisons with controls."""

from __future__ import annotations

from collections.abc import Iterable

from medvlm.data_recipes.sample import QuestionKind
from medvlm.eval.metric import Metric, each
from medvlm.eval.rows import Row
from medvlm.eval.scorers.catalogue import METRICS

_CHOSEN = {
    "closed": "closed_accuracy",
    "choice": "choice_accuracy",
    "open": "open_token_f1",
    "report": "finding_f1",
    "box": "box_iou",
}
CHOICES: tuple[QuestionKind, ...] = ("closed", "choice")
"""Kinds whose answers are right or wrong."""

ACCURACY = Metric(
    name="accuracy",
    title="Closed and multiple choice: accuracy",
    kinds=CHOICES,
    counts=each(lambda row: [float(row["correct"]), 1.0]),
    share=True,
)
"""Of both kinds together; a task rarely has both, and where it has, they are one examination."""


def main_metrics(kinds: Iterable[str]) -> dict[str, Metric]:
    """Kind -> its metric; a kind without a choice of ours has the first of its metrics where higher is better."""
    found: dict[str, Metric] = {}
    for kind in sorted(set(kinds)):
        named = METRICS.get(_CHOSEN.get(kind, ""))
        if named is not None:
            found[kind] = named[1]
            continue
        for scorer, metric in METRICS.values():
            if kind in metric.kinds and metric.better == "higher" and metric.unit == "share" and not scorer.added:
                found[kind] = metric
                break
    return found


def right_or_wrong(rows: Iterable[Row]) -> list[Row]:
    """The rows whose answers are right or wrong."""
    return [row for row in rows if row["kind"] in CHOICES and "correct" in row]
