"""report.html: one file without network that a person can read, keep and mail."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from medvlm.data_recipes.manifest import write_atomic
from medvlm.eval.aggregate import look_up
from medvlm.eval.found import Found
from medvlm.eval.gallery import GalleryRow
from medvlm.eval.plan import DIMENSIONS
from medvlm.eval.plots import COLOURS, LABELS, accuracy_bars, training_curves
from medvlm.eval.rows import Row

NAMES = {"2d": "2D images", "3d": "3D volumes", "video": "Video", "text": "Text only", "mixed": "Mixed", "all": "All"}
METRIC_NAMES = {
    "choice_accuracy": "Multiple choice: accuracy",
    "open_exact_match": "Open answers: exact match",
    "open_token_f1": "Open answers: token F1",
    "finding_f1": "Reports: finding F1",
    "finding_precision": "Reports: finding precision",
    "finding_recall": "Reports: finding recall",
    "negation_accuracy": "Reports: stated absences kept",
    "rouge_l": "Reports: ROUGE-L",
    "bleu_4": "Reports: BLEU-4",
    "bleu_1": "Reports: BLEU-1",
    "box_iou": "Boxes: mean IoU",
    "box_accuracy_25": "Boxes: IoU at least 0.25",
    "box_accuracy_50": "Boxes: IoU at least 0.5",
    "box_centre_mm": "Boxes: distance of centres",
}
UNITS = {"box_centre_mm": "mm"}
"""Of the metrics that are no share."""


def write_report(
    path: Path,
    metrics: Mapping[str, Any],
    rows: Sequence[GalleryRow],
    quarantine: Sequence[Row],
    train_metrics: Sequence[Path] | None = None,
    extra: Mapping[str, Mapping[str, Any]] | None = None,
    found: Found | None = None,
) -> None:
    """Write the report of one run.

    Args:
        path: of the HTML file.
        metrics: as aggregate returns it.
        rows: the gallery, as gallery.gallery returns it.
        quarantine: rows of quarantine.jsonl.
        train_metrics: metrics.jsonl of training runs ("stage", "step", "loss", "lr").
        extra: further tables, name -> {row name: value}, such as preference accuracies.
        found: what the folder held that the samples come from; shown first.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # what a model wrote is untrusted text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, number=_number, picture=_picture)
    curves = [training_curves(train_metrics or [], field) for field in ("loss", "lr")]
    html = environment.get_template("report.html").render(
        metrics=metrics,
        headline=_headline_rows(metrics["table"]),
        bars=[
            (NAMES.get(d, d), Markup(svg))
            for d in _dimensions(metrics["table"])
            if (svg := accuracy_bars(metrics["table"], d)) is not None
        ],
        scores=_score_rows(metrics["table"]),
        score_dimensions=["all", *_dimensions(metrics["table"])],
        gallery=rows,
        quarantine=quarantine,
        curves=[Markup(curve) for curve in curves if curve is not None],
        extra=extra or {},
        found=found,
        colours=COLOURS,
        labels=LABELS,
        names=NAMES,
    )
    write_atomic(path, html)


def _dimensions(table: Sequence[Row]) -> list[str]:
    found = {row["dimension"] for row in table}
    return [d for d in (*DIMENSIONS, "mixed", "text") if d in found]


def _headline_rows(table: Sequence[Row]) -> list[dict[str, Any]]:
    """Per dimension: accuracy under each condition and the best constant answer."""
    rows = []
    for dimension in _dimensions(table):
        cells = {c: look_up(table, "closed_accuracy", c, dimension) for c in ("image", "no_image", "swapped")}
        cells["majority"] = look_up(table, "majority_accuracy", "image", dimension)
        if any(cells.values()):
            rows.append({"dimension": dimension, "name": NAMES.get(dimension, dimension), "cells": cells})
    return rows


def _score_rows(table: Sequence[Row]) -> list[dict[str, Any]]:
    """Open answers and reports: with the image for all and by dimension, then the controls for all."""
    rows = []
    for metric, name in METRIC_NAMES.items():
        cells = [look_up(table, metric, "image", dimension) for dimension in ("all", *_dimensions(table))]
        cells += [look_up(table, metric, condition, "all") for condition in ("no_image", "swapped")]
        if cells[0] is not None:
            rows.append({"name": name, "cells": cells, "unit": UNITS.get(metric)})
    return rows


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _picture(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
