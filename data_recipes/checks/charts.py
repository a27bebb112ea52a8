"""Charts of the page: how long samples are, and how answers are spread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medvlm.data_recipes.checks.answers import Spread
from medvlm.data_recipes.drawing import INK, SERIES, axes_of, svg_of

SPLITS = ("train", "validation", "test")


def histogram(values: Sequence[int], name: str, limit: int | None = None) -> str | None:
    """Counts of rows by ``name``, with the limit as a line; None when there are none."""
    if not len(values):
        return None
    figure, axes = axes_of(5.4, 2.4)
    numbers = np.asarray(values)
    axes.hist(numbers, bins=min(40, max(1, int(np.ptp(numbers)) + 1)), color=SERIES[0])
    if limit is not None:
        axes.axvline(limit, color=SERIES[4], linewidth=1.5)
    axes.set_xlabel(name, color=INK)
    axes.set_ylabel("rows", color=INK)
    axes.grid(axis="y", color=INK, alpha=0.12)
    axes.set_axisbelow(True)
    return svg_of(figure, f"{name.capitalize()} of training rows")


def spread_bars(spread: Spread) -> str:
    """Shares of the most frequent answers, the splits side by side."""
    splits = [split for split in SPLITS if split in spread.counts]
    names = sorted(
        {answer for counts in spread.counts.values() for answer in counts},
        key=lambda answer: -max(spread.counts[split].get(answer, 0) / spread.totals[split] for split in splits),
    )[:8]
    figure, axes = axes_of(5.4, 0.6 + (0.16 + 0.17 * len(splits)) * len(names))
    high = 0.8 / len(splits)
    for number, split in enumerate(splits):
        shares = [spread.counts[split].get(name, 0) / spread.totals[split] for name in names]
        places = np.arange(len(names)) + (number - (len(splits) - 1) / 2) * high
        axes.barh(places, shares, height=high * 0.86, color=SERIES[SPLITS.index(split)], label=split)
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1.0], ["0", "50 %", "100 %"])
    axes.grid(axis="x", color=INK, alpha=0.12)
    axes.set_axisbelow(True)
    return svg_of(figure, f"Answers by split: {spread.source}, {spread.topic}".replace('"', "'").replace("&", "and"))


def _short(name: str) -> str:
    """At most 28 characters; a dollar sign would begin a formula of matplotlib."""
    return (name if len(name) <= 28 else name[:27] + "…").replace("$", r"\$")
