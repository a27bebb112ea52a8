"""The numbers of metrics.json as tables of report.html: by tier, beside each other, against published figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from medvlm.data_recipes.sample import QuestionKind
from medvlm.eval.main_metrics import ACCURACY, FIRST, main_metrics
from medvlm.eval.metric import TIERS
from medvlm.eval.plan import DIMENSIONS
from medvlm.eval.plots import CONSTANTS, LABELS
from medvlm.eval.rows import Row
from medvlm.eval.scorers.catalogue import METRICS

NAMES = {"2d": "2D images", "3d": "3D volumes", "video": "Video", "text": "Text only", "mixed": "Mixed", "all": "All"}

TIER_SAYS: Mapping[str, tuple[str, str]] = {
    "A": (
        "whether the answer is the expected one, to the digit the same on every machine",
        "whether other words mean the same: one negation costs one word",
    ),
    "B": (
        "whether findings, sides, sizes and places agree, by rules that can be read",
        "anything about what the rules and their word lists do not know",
    ),
    "C": (
        "agreement as a trained model sees it, which follows experts more closely on the data it was tested on",
        "more than its weights and its training data allow; other versions give other figures",
    ),
    "D": (
        "how a judging model rates the answer where no rule fits",
        "the truth: length, style and the judge’s own errors move it; audit it before use",
    ),
}
"""Tier -> (what it can say, what it cannot)."""


AT_ONCE = 12
"""Rows of one table that need no folding."""


def title_of(metric: str) -> str:
    """The title of a metric for people; of one that is no longer known its name."""
    if metric == ACCURACY.name:
        return ACCURACY.title
    return METRICS[metric][1].title if metric in METRICS else metric.replace("_", " ")


def unit_of(metric: str) -> str:
    """The unit of a metric; a share where it is no longer known."""
    return METRICS[metric][1].unit if metric in METRICS else "share"


def main_condition(table: Sequence[Row]) -> str:
    """The condition that the figures are about: with its image, or the first there is."""
    found = list(dict.fromkeys(row["condition"] for row in table))
    return "image" if "image" in found or not found else found[0]


def dimensions_of(table: Sequence[Row]) -> list[str]:
    found = {row["dimension"] for row in table}
    return [d for d in (*DIMENSIONS, "mixed", "text") if d in found]


def tiers(table: Sequence[Row]) -> list[dict[str, Any]]:
    """Every tier with its rows for all that was asked: those shown, and "more", folded away; none in an empty tier."""
    condition = main_condition(table)
    totals = [r for r in table if (r["condition"], r["dimension"], r["topic"]) == (condition, "all", "all")]
    found = []
    for letter, name in TIERS.items():
        rows = [row | {"title": title_of(row["metric"])} for row in totals if row["tier"] == letter]
        shown, more = first_and_more(rows)
        can, cannot = TIER_SAYS[letter]
        found.append({"letter": letter, "name": name, "can": can, "cannot": cannot, "rows": shown, "more": more})
    return found


def first_and_more(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Rows of metrics as two lists: what is read first, and the rest; a list that can be taken in at once is whole."""
    first = [row for row in rows if row["metric"] in FIRST]
    if len(rows) <= AT_ONCE or not first:
        return list(rows), []
    return first, [row for row in rows if row["metric"] not in FIRST]


def glance(table: Sequence[Row]) -> list[dict[str, Any]]:
    """The one figure of each kind of question, and what it must be seen against: the controls and the best constant."""
    main = main_condition(table)
    known = {(r["metric"], r["condition"]): r for r in table if r["dimension"] == r["topic"] == "all"}
    conditions = list(dict.fromkeys(row["condition"] for row in table if row["condition"] != main))
    cards = []
    for metric in (metric for kind in get_args(QuestionKind) for _, metric in main_metrics([kind])):
        row = known.get((metric.name, main))
        if row is None or row["value"] is None:
            continue
        against = [(name, condition_name(name), known.get((metric.name, name))) for name in conditions]
        against.append(("majority", condition_name("majority"), known.get((CONSTANTS.get(metric.name, ""), main))))
        shown = [
            {"key": key, "name": name, "row": other}
            for key, name, other in against
            if other is not None and other["value"] is not None
        ]
        cards.append({"title": title_of(metric.name), "row": row, "against": shown})
    return cards


def beside(table: Sequence[Row]) -> dict[str, Any]:
    """The same metrics for every kind of visual and under every condition.

    Returns:
        {"columns": [(dimension or condition, name, whether it is a condition)], "rows": [{metric, title, unit, tier,
        cells}], "more": as rows, folded away}; empty rows when there is only one column to show.
    """
    main, dimensions = main_condition(table), dimensions_of(table)
    conditions = [c for c in dict.fromkeys(row["condition"] for row in table) if c != main]
    places = [(main, d) for d in (dimensions if len(dimensions) > 1 else ())] + [(c, "all") for c in conditions]
    if not places:
        return {"columns": [], "rows": [], "more": []}
    places = [(main, "all"), *places]
    columns = [
        {"key": c, "name": condition_name(c), "condition": True}
        if c != main
        else {"key": d, "name": NAMES.get(d, d), "condition": False}
        for c, d in places
    ]
    known = {(r["metric"], r["condition"], r["dimension"]): r for r in table if r["topic"] == "all"}
    rows = []
    for metric in dict.fromkeys(row["metric"] for row in table):
        cells = [known.get((metric, c, d)) for c, d in places]
        first = next((cell for cell in cells if cell is not None), None)
        if first is not None and sum(cell is not None for cell in cells) > 1:
            about = {"metric": metric, "title": title_of(metric), "unit": first["unit"], "tier": first["tier"]}
            rows.append(about | {"cells": cells})
    shown, more = first_and_more(rows)
    return {"columns": columns, "rows": shown, "more": more}


def condition_name(condition: str) -> str:
    return LABELS.get(condition, condition.replace("_", " "))


def headline_rows(table: Sequence[Row]) -> list[dict[str, Any]]:
    """Per dimension: closed accuracy under each condition that tells seeing from guessing, and the best constant."""
    known = {(r["metric"], r["condition"], r["dimension"]): r for r in table if r["topic"] == "all"}
    rows = []
    for dimension in dimensions_of(table):
        cells = {c: known.get(("closed_accuracy", c, dimension)) for c in ("image", "no_image", "swapped")}
        cells["majority"] = known.get(("majority_accuracy", "image", dimension))
        if any(cells.values()):
            rows.append({"dimension": dimension, "name": NAMES.get(dimension, dimension), "cells": cells})
    return rows


def gaps(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Each published figure beside ours; the difference is ours less theirs.

    Returns:
        {"why_not", "rows"}: why no difference is given ("" when it is), and the figures with title, unit and "here",
        the row of the table that is about the same metric (None where there is none).
    """
    told = metrics.get("gap_to_published") or {}
    figures = told.get("figures") or metrics["run"].get("published") or ()
    known = {
        row["metric"]: row
        for row in metrics["table"]
        if (row["condition"], row["dimension"], row["topic"]) == ("image", "all", "all")
    }
    rows = []
    for figure in figures:
        here = known.get(figure["metric"])
        difference = None if here is None or here["value"] is None else here["value"] - figure["value"]
        rows.append(
            {"contains": None, "difference": difference, **figure}
            | {
                "title": title_of(figure["metric"]),
                "here": here,
                "unit": "share" if here is None else here["unit"],
            }
        )
    return {"why_not": told.get("why_not", "") if rows else "", "rows": rows}
