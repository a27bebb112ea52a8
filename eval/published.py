"""Our figure beside those that others published on the same task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medvlm.eval.rows import Row
from medvlm.eval.table import ALL, look_up


def gap_to_published(run: Mapping[str, Any], table: Sequence[Row]) -> dict[str, Any]:
    """How far ``table`` is from the published figures of the task of ``run``.

    Returns:
        {"comparable", "why_not", "figures"}: a run of a part of the questions has no figures, and says why. A figure
        has ours with its interval, theirs, the difference (ours - theirs) and whether our interval contains theirs;
        None where we have no such metric.
    """
    published = run.get("published") or ()
    why_not = _why_not(run) if published else "no figures are known" if run.get("task") else "the run is of no task"
    return {
        "comparable": not why_not,
        "why_not": why_not,
        "figures": [] if why_not else [_figure(figure, table) for figure in published],
    }


def _why_not(run: Mapping[str, Any]) -> str:
    if run.get("differs"):
        return f"not the published split: {run['differs']}"
    if run.get("limit") is not None:
        return f"only {run['limit']} questions were asked"
    if run.get("unanswered"):
        return f"{run['unanswered']} requests were not answered"
    return ""


def _figure(figure: Mapping[str, Any], table: Sequence[Row]) -> Row:
    row = look_up(table, figure["metric"], "image", ALL)
    ours = None if row is None else row["value"]
    low, high = (None, None) if row is None else (row["low"], row["high"])
    return {
        **figure,
        "ours": ours,
        "low": low,
        "high": high,
        "difference": None if ours is None else ours - figure["value"],
        "contains": None if low is None or high is None else bool(low <= figure["value"] <= high),
    }
