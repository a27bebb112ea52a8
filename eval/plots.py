"""Plots of the report as inline SVG that follow the page's text colour."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medvlm.data_recipes.drawing import INK, SERIES, axes_of, svg_of
from medvlm.eval.rows import Row, read_rows
from medvlm.eval.running_mean import running_mean

COLOURS = {
    "image": "#2a7f9e", "no_image": "#c77d2e", "swapped": "#8a6bb0", "choices_shuffled": "#4f8f4a",
    "paraphrase": "#b5525c", "noise": "#6f8a3a", "majority": "#7d8590",
}  # fmt: skip
LABELS = {
    "image": "with its image",
    "no_image": "without an image",
    "swapped": "with another patient’s image",
    "choices_shuffled": "choices in other orders",
    "paraphrase": "in other words",
    "noise": "with a little noise",
    "majority": "best constant answer",
}
CONSTANTS = {"closed_accuracy": "majority_accuracy", "choice_accuracy": "choice_majority_accuracy"}
"""Metric -> that of the best constant answer."""

MOST_TOPICS = 30


def accuracy_bars(table: Sequence[Row], dimension: str, metric: str = "closed_accuracy") -> str | None:
    """A share by topic with 95 % intervals, the conditions side by side; None when nothing was asked.

    The best constant answer is a mark across each topic. Of more than MOST_TOPICS those with most questions are shown.
    """
    rows = [r for r in table if r["metric"] == metric and r["dimension"] == dimension]
    asked = {r["topic"]: r["n"] for r in reversed(rows)}
    topics = sorted(sorted(asked.keys() - {"all"}, key=lambda topic: (-asked[topic], topic))[:MOST_TOPICS])
    topics = ["all", *topics] if len(topics) > 1 else topics
    conditions = list(dict.fromkeys(r["condition"] for r in rows))
    if not topics:
        return None
    figure, axes = axes_of(7.2, 0.55 + (0.16 + 0.2 * len(conditions)) * len(topics))
    high = 0.8 / len(conditions)
    for number, condition in enumerate(conditions):
        for place, topic in enumerate(topics):
            found = [r for r in rows if (r["condition"], r["topic"]) == (condition, topic)]
            if not found or found[0]["value"] is None:
                continue
            colour = COLOURS.get(condition, SERIES[-1])
            _bar(axes, found[0], place + (number - (len(conditions) - 1) / 2) * high, high * 0.86, colour)
    for row in table:
        constant = (row["metric"], row["condition"], row["dimension"]) == (CONSTANTS.get(metric), "image", dimension)
        if constant and row["topic"] in topics and row["value"] is not None:
            place = topics.index(row["topic"])
            axes.plot([row["value"]] * 2, [place - 0.46, place + 0.46], color=COLOURS["majority"], linewidth=2)
    axes.set_yticks(range(len(topics)), [plain(topic) for topic in topics])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.0)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.grid(axis="x", color=INK, alpha=0.12)
    axes.set_axisbelow(True)
    return svg_of(figure, f"{metric.replace('_', ' ').capitalize()} by topic, {dimension}")


def plain(text: str) -> str:
    """``text`` as the label of an axis; a dollar sign would begin a formula."""
    return text.replace("_", " ").replace("$", r"\$")


def _bar(axes: Any, row: Row, centre: float, thickness: float, colour: str) -> None:
    axes.barh(centre, row["value"], height=thickness, color=colour)
    if row["low"] is not None:
        axes.plot([row["low"], row["high"]], [centre, centre], color=INK, linewidth=1.4, alpha=0.75)


def training_curves(paths: Sequence[Path], field: str = "loss") -> str | None:
    """``field`` over steps, one line per stage of the training runs' metrics.jsonl; None when no row has it.

    Stages are laid one after another, because each counts its steps from its own start.
    """
    stages: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for path in paths:
        for row in read_rows(path):
            if isinstance(row.get(field), int | float) and "step" in row:
                stages[str(row.get("stage", path.parent.name))].append((float(row["step"]), float(row[field])))
    if not stages:
        return None
    figure, axes = axes_of(7.2, 2.8)
    offset = 0.0
    for number, (stage, points) in enumerate(stages.items()):
        points.sort()
        colour = SERIES[number % len(SERIES)]
        steps, values = [offset + step for step, _ in points], [value for _, value in points]
        axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.35)
        axes.plot(steps, running_mean(values), color=colour, linewidth=1.8, label=stage)
        offset = max(steps)
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel(field.replace("_", " "), color=INK)
    axes.grid(axis="y", color=INK, alpha=0.12)
    axes.legend(frameon=False, labelcolor=INK)
    return svg_of(figure, f"Training {field} over steps")
