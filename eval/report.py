"""report.html: one file without network that a person can read, keep and mail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from medvlm.eval.cases import Browser
from medvlm.eval.found import Found
from medvlm.eval.gallery import WHY_UNREAD
from medvlm.eval.plots import COLOURS, LABELS, accuracy_bars, training_curves
from medvlm.eval.report_page import write_page
from medvlm.eval.report_plots import Lengths, plots_of
from medvlm.eval.report_tables import (
    NAMES,
    beside,
    condition_name,
    dimensions_of,
    gaps,
    glance,
    headline_rows,
    main_condition,
    tiers,
    title_of,
)
from medvlm.eval.rows import Row

BARS = ("closed_accuracy", "choice_accuracy", "open_token_f1", "finding_f1")
"""Metrics that are plotted by topic."""


def write_report(
    path: Path,
    metrics: Mapping[str, Any],
    browser: Browser | None,
    quarantine: Sequence[Row],
    train_metrics: Sequence[Path] | None = None,
    extra: Mapping[str, Mapping[str, Any]] | None = None,
    found: Found | None = None,
    lengths: Lengths | None = None,
) -> None:
    """Write the report of one run.

    Args:
        path: of the HTML file.
        metrics: as aggregate returns it.
        browser: the cases, as cases.browse returns them; None: a page without cases.
        quarantine: rows of quarantine.jsonl.
        train_metrics: metrics.jsonl of training runs ("stage", "step", "loss", "lr").
        extra: further tables, name -> {row name: value}, such as preference accuracies.
        found: what the folder held that the samples come from; shown first.
        lengths: words of answers and references, as report_plots.lengths_of returns them.
    """
    table, run = metrics["table"], {"task": None, "title": None, "fingerprint": None} | dict(metrics["run"])
    curves = [training_curves(train_metrics or [], field) for field in ("loss", "lr")]
    conditions = list(dict.fromkeys(row["condition"] for row in table))
    shown_tiers = tiers(table)
    write_page(
        path,
        "report.html",
        metrics={"against_controls": None, "abstention": None, "patient_level": None} | dict(metrics),
        run=known(run),
        private=before_sharing(run),
        tiers=shown_tiers if any(tier["rows"] for tier in shown_tiers) else [],
        bounds=any(row.get("upper") is not None for tier in shown_tiers for row in tier["rows"] + tier["more"]),
        glance=glance(table),
        condition=condition_name(main_condition(table)),
        gaps=gaps(metrics),
        headline=headline_rows(table),
        beside=beside(table),
        bars=_bars(table),
        shown_conditions=[*conditions, "majority"],
        plots=plots_of(metrics, lengths or {}),
        browser=browser,
        quarantine=quarantine,
        curves=[Markup(curve) for curve in curves if curve is not None],
        extra=extra or {},
        found=found,
        colours=COLOURS,
        labels=LABELS,
        names=NAMES,
        why_unread=WHY_UNREAD,
    )


def known(run: Mapping[str, Any]) -> dict[str, Any]:
    """``run`` with the keys that the template asks for, whichever run folder it comes from."""
    absent = dict.fromkeys(
        ("manifests", "splits", "differs", "limit", "seed", "unanswered", "requests", "cluster", "access"), None
    )
    return absent | dict(run)


def before_sharing(run: Mapping[str, Any]) -> tuple[str, str] | None:
    """What to say before the page is passed on, as heading and sentence; None when all of it is open."""
    access = run.get("access")
    if access == "open":
        return None
    if access is None:
        return (
            "Before you share this file:",
            "it holds questions, answers and pictures of the samples that were asked. Those of patients may only leave "
            "the house once they are de-identified and released.",
        )
    return (
        "Do not share this file.",
        f"The data of {run['task']} are {access}: its questions, references and pictures stand in this page, and the "
        "terms of use forbid passing them on.",
    )


def _bars(table: Sequence[Row]) -> list[tuple[str, Markup]]:
    found = []
    for metric in BARS:
        for dimension in dimensions_of(table):
            topics = {row["topic"] for row in table if (row["metric"], row["dimension"]) == (metric, dimension)}
            svg = accuracy_bars(table, dimension, metric) if len(topics - {"all"}) > 1 else None
            if svg is not None:
                found.append((f"{title_of(metric)}, {NAMES.get(dimension, dimension)}", Markup(svg)))
    return found
