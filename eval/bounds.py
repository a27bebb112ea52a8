"""Between which bounds an accuracy lies, whatever one thinks of how answers were read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medvlm.eval.metric import Metric
from medvlm.eval.rows import Row

ASKED_FORM = frozenset({"exact", "letter_only", "tag", "answer_marker"})
"""Extraction rules that read an answer in the form that was asked for: the choice or its letter and nothing else, in a
tag or after "answer:". Those of other rules were found in prose."""

_CHOICES = {"closed", "choice"}


def bounds_of(metric: Metric, counts: np.ndarray, in_form: np.ndarray, unparsed: np.ndarray) -> Row:
    """The strict and the lenient value of an accuracy, for a row of the table; nothing for other metrics.

    Args:
        counts: (N, 2) of (hit, 1), of the answers that were scored.
        in_form, unparsed: (N,) which of them were read by a rule of ASKED_FORM, and which could not be read.

    Returns:
        {"strict", "upper"}: "strict" counts only right answers in the asked form (None where the kind of question has
        no such form), "upper" counts everything unparsed as right.
        A reader of more answers stays between them; how many were read wrongly, only a human tells (audit.py).
    """
    if not metric.share or metric.better != "higher":
        return {}
    hits = counts[:, 0]
    strict = None
    if set(metric.kinds) <= _CHOICES:
        strict = float(np.mean(hits * in_form))
    return {"strict": strict, "upper": float(np.mean(np.where(unparsed, 1.0, hits)))}


def bounds_table(table: Sequence[Row]) -> list[Row]:
    """The bounds of each accuracy under each condition, over all questions."""
    keys = ("condition", "metric", "strict", "value", "upper", "n", "unparsed")
    rows = [row for row in table if "upper" in row and row["dimension"] == row["topic"] == "all"]
    return [{key: row[key] for key in keys} for row in rows]
