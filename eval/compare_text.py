"""A comparison in words and as a table in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medvlm.eval.rows import Row

_COLUMNS = (
    "task", "condition", "metric", "n", "clusters", "A", "B", "B - A", "95 % interval", "test", "p", "p after Holm",
    "detectable",
)  # fmt: skip


def amount(value: float | None, unit: str, *, signed: bool = False) -> str:
    """A value for people: shares in percent, others with their unit."""
    if value is None:
        return "–"
    sign = "+" if signed else ""
    return f"{100 * value:{sign}.1f} %" if unit == "share" else f"{value:{sign}.3g} {unit}"


def p_text(p: float | None) -> str:
    """A p-value for people."""
    return "–" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.01 else f"{p:.2f}"


def words(row: Row) -> str:
    """One sentence that says no more than the test does."""
    where = f"{row['title']}{' on ' + row['task'] if row['task'] else ''}"
    size = f"{row['n']} questions of {row['n_clusters']} {_PLURAL[row['cluster']]}"
    if row["p"] is None:
        return f"{where}: {size} are too few for a test."
    points = "percentage points" if row["unit"] == "share" else row["unit"]
    factor = 100 if row["unit"] == "share" else 1
    size_of = f"{factor * abs(row['difference']):.3g} {points}" if row["difference"] is not None else "unknown"
    between = ""
    if row["low"] is not None:
        between = f" (95 % interval of B - A: {factor * row['low']:+.3g} to {factor * row['high']:+.3g})"
    if row["better"] is not None:
        p = p_text(row["p_holm"])
        return f"{where}: {row['better'].upper()} is better by {size_of}{between}, p = {p} after Holm; {size}."
    least = ""
    if row["detectable"] is not None:
        least = f" A true difference below {factor * row['detectable']:.3g} {points} would often be missed with {size}."
    return (
        f"{where}: no difference was shown, B - A is {factor * (row['difference'] or 0):+.3g} {points}{between}.{least}"
    )


_PLURAL = {"patient": "patients", "study": "studies"}


def markdown(found: Mapping[str, Any]) -> str:
    """compare.md: the table, the sentences, and how it was tested."""
    a, b = found["a"], found["b"]
    lines = [
        "# Two runs compared",
        "",
        f"A: {a['model']} ({a['folder']}). B: {b['model']} ({b['folder']}). Differences are B - A.",
        "",
        "| " + " | ".join(_COLUMNS) + " |",
        "|---" * len(_COLUMNS) + "|",
    ]
    for row in found["tests"]:
        interval = "–"
        if row["low"] is not None:
            interval = (
                f"{amount(row['low'], row['unit'], signed=True)} to {amount(row['high'], row['unit'], signed=True)}"
            )
            interval += " (few clusters)" if row["few_clusters"] else ""
        cells = (
            row["task"] or "manifests",
            row["condition"],
            row["metric"],
            str(row["n"]),
            str(row["n_clusters"]),
            amount(row["a"], row["unit"]),
            amount(row["b"], row["unit"]),
            amount(row["difference"], row["unit"], signed=True),
            interval,
            row["test"].replace("_", " "),
            p_text(row["p"]),
            p_text(row["p_holm"]),
            amount(row["detectable"], row["unit"]),
        )
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *(f"- {row['words']}" for row in found["tests"]), ""]
    for run in found["runs"]:
        told = [f"{run['questions']} shared questions", *([f"{run['left_out']} left out"] if run["left_out"] else [])]
        lines.append(f"{run['task'] or 'Manifests'}: {', '.join([*told, *run['notes']])}.")
    lines += [f"Not compared: {one}." for one in found["only_in_one"]]
    tested = sum(row["p"] is not None for row in found["tests"])
    lines += [
        "",
        f"{tested} tests, corrected together by Holm's method at {100 * found['level']:.0f} %. McNemar's exact test "
        "where every cluster was asked once and answers are right or wrong; otherwise answers of whole clusters are "
        "swapped at random between the runs (approximate randomisation), because answers about one patient are not "
        "independent. Intervals: BCa bootstrap over clusters. Detectable: the least true difference that one test at "
        "5 % would find in 80 % of repetitions with as many questions and clusters; after Holm it is larger.",
    ]
    return "\n".join(lines) + "\n"
