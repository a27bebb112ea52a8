"""The figures of runs as a table for a paper or a spreadsheet: CSV, Markdown, LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medvlm.eval.metric import TIERS
from medvlm.eval.rows import Row
from medvlm.eval.scorers.catalogue import METRICS

COLUMNS = (
    "model",
    "task",
    "condition",
    "tier",
    "metric",
    "value",
    "low",
    "high",
    "n",
    "clusters",
    "unparsed",
    "unscored",
    "part",
)


def part_of(run: Mapping[str, Any]) -> str:
    """Why the figures of a run are not those of its whole task, in a word or two; "" when they are."""
    if run.get("differs"):
        return "not the published split"
    if run.get("limit") is not None and run.get("task"):
        return f"limit {run['limit']}"
    return f"{run['unanswered']} not answered" if run.get("unanswered") else ""


def table_rows(runs: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row per run, condition and metric over all questions, from what metrics.json holds."""
    return [
        {
            "model": run["run"]["model"],
            "task": run["run"]["task"] or "own questions",
            "condition": row["condition"],
            "tier": row["tier"],
            "metric": row["metric"],
            "value": row["value"],
            "low": row["low"],
            "high": row["high"],
            "n": row["n"],
            "clusters": row["n_clusters"],
            "unparsed": row["unparsed"],
            "unscored": row["unscored"],
            "part": part_of(run["run"]),
        }
        for run in runs
        for row in run["table"]
        if row["dimension"] == row["topic"] == "all"
    ]


def as_csv(runs: Sequence[Mapping[str, Any]]) -> str:
    """All rows, numbers in full."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table_rows(runs))
    return text.getvalue()


def _shown(row: Row) -> tuple[str, str]:
    """(value with its interval, n), shares in percent; the unit of others stands in the title."""
    _, metric = METRICS[row["metric"]]
    if row["value"] is None:
        return "–", str(row["n"])
    scale, places = (100.0, 1) if metric.unit == "share" else (1.0, 2)
    value = f"{scale * row['value']:.{places}f}"
    if row["low"] is not None:
        value += f" [{scale * row['low']:.{places}f}, {scale * row['high']:.{places}f}]"
    return value, f"{row['n']}"


def _grid(runs: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and lines for people: with the image only, a column per model, a line per task and metric."""
    rows = [row for row in table_rows(runs) if row["condition"] == "image"]
    models = list(dict.fromkeys(row["model"] for row in rows))
    lines: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        task = row["task"] + (f" ({row['part']})" if row["part"] else "")  # a line never mixes a part with the whole
        lines.setdefault((task, row["metric"]), {})[row["model"]] = row
    body: list[list[str]] = []
    for (task, name), by in lines.items():
        _, metric = METRICS[name]
        arrow = {"higher": "↑", "lower": "↓", "neither": ""}[metric.better]
        unit = "%" if metric.unit == "share" else metric.unit
        counts = {row["n"] for row in by.values()}
        body.append(
            [
                task,
                f"{metric.title} ({unit}) {arrow}".strip(),
                "/".join(str(n) for n in sorted(counts)),
                *(_shown(by[model])[0] if model in by else "not asked" for model in models),
            ]
        )
    return ["task", "metric", "n", *models], body


def as_markdown(runs: Sequence[Mapping[str, Any]]) -> str:
    """A table with 95 % intervals."""
    header, body = _grid(runs)
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


_LATEX = str.maketrans(
    {
        "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--",
    }
)  # fmt: skip


def as_latex(runs: Sequence[Mapping[str, Any]]) -> str:
    """A booktabs table with 95 % intervals, and what each number is in a comment above it."""
    header, body = _grid(runs)
    said = {metric: METRICS[metric][0] for run in runs for metric in (row["metric"] for row in run["table"])}
    used = dict.fromkeys(said.values())
    comments = [f"% tier {one.tier} ({TIERS[one.tier]}), {one.name}: {one.implementation}" for one in used]
    lines = [
        *comments,
        rf"\begin{{tabular}}{{ll{'r' * (len(header) - 2)}}}",
        r"\toprule",
        " & ".join(cell.translate(_LATEX) for cell in header) + r" \\",
        r"\midrule",
        *(" & ".join(cell.translate(_LATEX) for cell in line) + r" \\" for line in body),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(line.replace("\n", " ") for line in lines) + "\n"


TABLES: Mapping[str, tuple[str, Callable[[Sequence[Mapping[str, Any]]], str]]] = {
    "csv": (".csv", as_csv),
    "markdown": (".md", as_markdown),
    "latex": (".tex", as_latex),
}
"""Form -> (ending of the file, what writes it)."""
