"""Further plots of report.html: groups in which a model does worse, calibration, abstention, and lengths of answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from medvlm.data_recipes.drawing import INK, SERIES, axes_of, svg_of
from medvlm.eval.plan import Ask
from medvlm.eval.plots import COLOURS, LABELS, plain
from medvlm.eval.report_tables import title_of
from medvlm.eval.rows import Row

Lengths = Mapping[str, Mapping[str, Sequence[int]]]
"""Kind of question -> condition, or "reference" -> words of each text."""


def lengths_of(asks: Sequence[Ask], responses: Sequence[Row]) -> Lengths:
    """How many words answers and references have; a language that writes without blanks is counted in characters."""
    kinds = {ask.request_id: ask for ask in asks}
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in responses:
        ask = kinds.get(row["request_id"])
        if ask is None:
            continue
        found[ask.question.kind][row["condition"]].append(_words(row["text"]))
        if row["condition"] == "image":
            found[ask.question.kind]["reference"].append(_words(ask.question.answers[0]))
    return found


def _words(text: str) -> int:
    return sum(max(1, sum("\u3040" <= letter <= "\u9fff" for letter in word)) for word in text.split())


def plots_of(metrics: Mapping[str, Any], lengths: Lengths) -> list[dict[str, Any]]:
    """Groups of figures (id, title, says, figures: title, svg, says); what metrics.json does not hold is left out."""
    groups = [
        _subgroups(metrics.get("subgroups") or {}),
        _confidence(metrics.get("calibration"), (metrics.get("abstention") or {}).get("risk_coverage")),
        _lengths(lengths),
    ]
    return [group for group in groups if group["figures"]]


def _figure(title: str, svg: str, says: str = "") -> dict[str, Any]:
    return {"title": title, "svg": Markup(svg), "says": says}


def _percent_axis(axes: Any, which: str) -> None:
    places, labels = [0, 0.25, 0.5, 0.75, 1.0], ["0", "25 %", "50 %", "75 %", "100 %"]
    getattr(axes, f"set_{which}lim")(0, 1)
    getattr(axes, f"set_{which}ticks")(places, labels)


def _subgroups(told: Mapping[str, Any]) -> dict[str, Any]:
    figures = []
    for number, one in enumerate(told.get("strata", ())):
        groups = [group for group in one["groups"] if group["value"] is not None]
        if len(groups) < 2:
            continue
        figure, axes = axes_of(7.2, 0.75 + 0.34 * len(groups))
        for place, group in enumerate(groups):
            clear = group["gap_low"] is not None and (group["gap_low"] > 0 or group["gap_high"] < 0)
            colour = SERIES[4] if clear else SERIES[0]
            if group["low"] is not None:
                axes.plot([group["low"], group["high"]], [place, place], color=colour, linewidth=2.2, alpha=0.6)
            axes.plot([group["value"]], [place], "o", color=colour, markersize=7)
        axes.set_yticks(range(len(groups)), [plain(f"{group['group']} (n {group['n']})") for group in groups])
        axes.invert_yaxis()
        axes.margins(y=0.12)
        if one["unit"] == "share":
            _percent_axis(axes, "x")
        else:
            axes.set_xlabel(one["unit"], color=INK)
        axes.grid(axis="x", color=INK, alpha=0.12)
        title = f"{title_of(one['metric'])}, by {one['stratum'].replace('_', ' ')}"
        small = sum(one["small"].values())
        notes = [f"{small} questions in groups of fewer than {told['minimum']} are not shown" if small else ""]
        notes.append(f"{one['unknown']} questions name no group" if one["unknown"] else "")
        svg = svg_of(figure, f"{title} ({number})")
        figures.append(_figure(title, svg, "; ".join(note for note in notes if note)))
    says = ""
    if told.get("comparisons"):
        says = (
            f"Red: the group differs from all others by more than the 95 % interval of the gap. Of "
            f"{told['comparisons']} gaps {told['excluding_zero']} do; {told['expected_by_chance']:.1f} would by chance."
        )
    return {"id": "subgroups", "title": "Groups", "says": says, "figures": figures}


def _confidence(calibration: Mapping[str, Any] | None, curve: Mapping[str, Any] | None) -> dict[str, Any]:
    figures = []
    if calibration:
        figure, axes = axes_of(5.2, 4.4)
        axes.plot([0, 1], [0, 1], color=INK, alpha=0.35, linewidth=1, linestyle="--")
        most = max(row["n"] for row in calibration["reliability"])
        for row in calibration["reliability"]:
            size = 4 + 9 * (row["n"] / most) ** 0.5
            axes.plot([row["confidence"]] * 2, [row["low"], row["high"]], color=SERIES[0], alpha=0.5, linewidth=1.6)
            axes.plot([row["confidence"]], [row["accuracy"]], "o", color=SERIES[0], markersize=size)
        for which in ("x", "y"):
            _percent_axis(axes, which)
        axes.set_xlabel("confidence", color=INK)
        axes.set_ylabel("share right", color=INK)
        axes.grid(color=INK, alpha=0.12)
        error, adaptive, by_chance = (
            100 * value
            for value in (calibration["ece"], calibration["ece_adaptive"], calibration["ece_if_calibrated"]["p95"])
        )
        says = (
            f"Expected calibration error {error:.1f} % over {calibration['n']} answers ({calibration['bins']} bins of "
            f"equal width; of equal mass {adaptive:.1f} %). A model that is right exactly as often as it says would "
            f"show up to {by_chance:.1f} %. Brier score {calibration['brier']['value']:.3f}. On the dashed line "
            "confidence is right; the larger a dot, the more answers."
        )
        figures.append(_figure("Reliability", svg_of(figure, "Reliability"), says))
    if curve:
        figure, axes = axes_of(5.2, 4.4)
        points = curve["points"]
        axes.plot([p["coverage"] for p in points], [p["risk"] for p in points], color=SERIES[0], linewidth=2)
        axes.axhline(curve["aurc_random"], color=INK, alpha=0.35, linewidth=1, linestyle="--")
        _percent_axis(axes, "x")
        top = max(0.05, 1.1 * max(point["risk"] for point in points))
        axes.set_ylim(0, min(1.0, top))
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.set_xlabel("share of answers kept, the most confident first", color=INK)
        axes.set_ylabel("share wrong among them", color=INK)
        axes.grid(color=INK, alpha=0.12)
        says = (
            f"Area under the curve {100 * curve['aurc']:.1f} %; {100 * curve['aurc_best']:.1f} % with every right "
            f"answer first, {100 * curve['aurc_random']:.1f} % (dashed) in an order that knows nothing. "
            f"{curve['n']} answers."
        )
        figures.append(_figure("Risk and coverage", svg_of(figure, "Risk and coverage"), says))
    return {
        "id": "confidence",
        "title": "Confidence",
        "says": "Whether the model is right as often as it says, and what leaving unsure answers to a person is worth.",
        "figures": figures,
    }


def _lengths(lengths: Lengths) -> dict[str, Any]:
    figures = []
    for kind, told in lengths.items():
        names = [name for name in ("reference", *COLOURS) if told.get(name)]
        if not names or kind == "box":
            continue
        figure, axes = axes_of(7.2, 0.7 + 0.34 * len(names))
        for place, name in enumerate(names):
            least, low, middle, high, most = np.quantile(told[name], (0.05, 0.25, 0.5, 0.75, 0.95))
            colour = COLOURS.get(name, INK)
            axes.plot([least, most], [place, place], color=colour, linewidth=1.6, alpha=0.7)
            axes.barh(place, max(high - low, 1e-9), left=low, height=0.5, color=colour, alpha=0.55)
            axes.plot([middle], [place], "|", color=colour, markersize=17, markeredgewidth=2.4)
        axes.set_yticks(range(len(names)), [LABELS.get(name, name) for name in names])
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("words", color=INK)
        axes.grid(axis="x", color=INK, alpha=0.12)
        figures.append(_figure(f"{kind.capitalize()} answers", svg_of(figure, f"Lengths of {kind} answers")))
    says = "Words of references and of answers: the bar holds the middle half, the line all but the outer twentieths."
    return {"id": "lengths", "title": "Lengths of answers", "says": says, "figures": figures}
