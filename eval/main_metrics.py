"""The numbers that stand for each kind of question where few can: terminal, subgroups, comparisons with controls."""

from __future__ import annotations

from collections.abc import Iterable

from medvlm.data_recipes.sample import QuestionKind
from medvlm.eval.metric import Metric, each
from medvlm.eval.rows import Row
from medvlm.eval.scorers.catalogue import METRICS

_CHOSEN: dict[str, tuple[str, ...]] = {
    "closed": ("closed_accuracy",),
    "choice": ("choice_accuracy",),
    "open": ("open_token_f1",),
    "report": ("finding_f1",),
    "box": ("box_iou",),
    "labels": ("labels_micro_f1",),
    "span": ("span_exact", "entity_micro_f1"),
    "json": ("json_field_accuracy",),
}
"""Several where a question is marked by one of them only: a span is one passage or a set of mentions."""

FIRST = frozenset(
    {
        "mean_words", "length_ratio", "rouge_l", "bleu_1", "bleu_4", "coco_cider_d", "chrf",
        "finding_f1", "finding_precision", "finding_recall", "negation_accuracy", "chexpert_14_micro_f1",
        "chexpert_14_macro_f1", "chexpert_5_micro_f1", "chexpert_5_macro_f1", "chair_i", "chair_s", "negation_flips",
        "side_right", "severity_right", "measurement_f1",
    }
)  # fmt: skip
"""Of a report, which has more than sixty: the metrics that a reader is shown before the others."""

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


def main_metrics(kinds: Iterable[str]) -> list[tuple[str, Metric]]:
    """(kind, its metric), by kind; twice where its questions are marked by one of two."""
    return [(kind, METRICS[name][1]) for kind in sorted(set(kinds)) for name in _CHOSEN[kind]]


def right_or_wrong(rows: Iterable[Row]) -> list[Row]:
    """The rows whose answers are right or wrong."""
    return [row for row in rows if row["kind"] in CHOICES and "correct" in row]
