"""What a run says on the terminal: its main figures with interval and n, what they stand against, what went unread."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medvlm.eval.report_tables import NAMES, condition_name, gaps, glance, main_condition
from medvlm.eval.rows import Row

_WIDTH = 52


def lines_of(out: Path, metrics: Mapping[str, Any]) -> list[str]:
    """The lines, from what metrics.json of the run folder ``out`` holds."""
    run, counts = metrics["run"], metrics["counts"]
    table = metrics["table"]
    asked = sum(run["splits"].values())
    limited = run["limit"] is not None and run["limit"] < asked
    seen = f", asked {condition_name(main_condition(table))}" if run["requests_with_visuals"] else ""
    lines = ["", f"{run['task'] or 'own questions'}, {run['model']}{seen}"]
    if run.get("differs"):
        lines.append(f"not the published split: {run['differs']}")
    if limited:
        lines.append(f"a part only: at most {run['limit']} samples of each manifest or task were asked (--limit)")
    if run.get("unanswered"):
        lines.append(
            f"not finished: {run['unanswered']} of {run['requests']} requests have no answer; "
            f"see {out / 'quarantine.jsonl'}"
        )
    lines += _figures(metrics)
    lines += _published(metrics)
    lines.append(
        f"{counts['responses']} answers under {_named(len({row['condition'] for row in table}), 'condition')}: "
        f"{counts['unparsed']} unreadable, {counts['empty']} empty, {counts['truncated']} cut off; "
        f"{run['quarantined']} quarantined; {_named(sum(counts['degenerate'].values()), 'degenerate case')}"
    )
    return [*lines, f"report: {out / 'report.html'}"]


def _named(number: int, name: str) -> str:
    return f"{number} {name}" + ("" if number == 1 else "s")


def _figures(metrics: Mapping[str, Any]) -> list[str]:
    of = "studies" if metrics["run"].get("cluster") == "study" else "patients"
    lines = [f"{'':{_WIDTH}}{'value':>8}  {'95 % interval':16}{'n':>7}{of:>10}{'unreadable':>12}"]
    cards = glance(metrics["table"])
    for card in cards:
        lines.append(_line(card["title"], card["row"]))
        lines += [_line(f"  {other['name']}", other["row"]) for other in card["against"]]
    if not cards:
        return ["no metric of what was asked has a value"]
    looks = metrics["looks_at_the_image"]
    said = {True: "yes", False: "not shown"}
    shown = [f"{NAMES[name]}: {said[value]}" for name, value in looks.items() if value is not None]
    return lines + ([f"looks at the image: {'; '.join(shown)}"] if shown else [])


def _line(title: str, row: Row) -> str:
    interval = "" if row["low"] is None else f"{_plain(row['low'], row)} to {_plain(row['high'], row)}"
    unit = " %" if row["unit"] == "share" else f" {row['unit']}".rstrip()
    return (
        f"{title[: _WIDTH - 1]:{_WIDTH}}{_plain(row['value'], row) + unit:>8}  {interval:16}{row['n']:>7}"
        f"{row['n_clusters']:>10}{row['unparsed']:>12}"
    )


def _plain(value: float, row: Mapping[str, Any]) -> str:
    return f"{100 * value:.1f}" if row["unit"] == "share" else f"{value:.3g}"


def _published(metrics: Mapping[str, Any]) -> list[str]:
    """Each published figure in a sentence; of what must not be compared, that and why."""
    told = gaps(metrics)
    if not told["rows"]:
        return []
    if told["why_not"]:
        return [f"beside published figures: not comparable, {told['why_not'].partition(':')[0]}"]
    lines = []
    for row in told["rows"]:
        said = f"{row['title']} of {row['model']} is published as {_plain(row['value'], row)}"
        if row["difference"] is None:
            lines.append(f"{said}; nothing here to put beside it")
            continue
        points = " points" if row["unit"] == "share" else f" {row['unit']}".rstrip()
        more = "above" if row["difference"] > 0 else "below"
        gap = "equal" if row["difference"] == 0 else f"{_plain(abs(row['difference']), row)}{points} {more} it"
        inside = {True: ", which is within our interval", False: ", which is outside of our interval", None: ""}
        lines.append(f"{said}: here {_plain(row['here']['value'], row)}, {gap}{inside[row['contains']]}")
    return [*lines, "how each was measured, and what differs: in the report"]
