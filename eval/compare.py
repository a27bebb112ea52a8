"""Two models on the same questions: every difference with its interval and its p after Holm.

medvlm eval compare RUN_A RUN_B
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from medvlm.data_recipes.manifest import write_atomic
from medvlm.eval.against_controls import by_sample
from medvlm.eval.compare_runs import TwoRuns, pair_up
from medvlm.eval.compare_text import markdown, words
from medvlm.eval.main_metrics import FIRST
from medvlm.eval.metric import Metric, Scorer
from medvlm.eval.multiple_tests import holm
from medvlm.eval.paired import DRAWS, compare_counts
from medvlm.eval.rows import Row, write_json
from medvlm.eval.scorers.catalogue import METRICS
from medvlm.eval.table import clusters_of

LEVEL = 0.05


def compare(
    folder_a: Path,
    folder_b: Path,
    out: Path,
    *,
    intersection: bool = False,
    conditions: Sequence[str] = ("image",),
    metrics: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two run folders, or two folders of run folders; write ``out``/compare.json and compare.md.

    Args:
        intersection: go on with what they share where they were not asked the same.
        conditions: whose answers are compared.
        metrics: names; None: all that apply and have a better way, of reports those of main_metrics.FIRST. Fewer tests
            are corrected less: choose them before looking.

    Returns:
        {"a", "b": model and settings, "runs": task, shared questions, notes; "tests": a row per task, condition and
        metric with the fields of paired.Paired, "p_holm" over all rows, "better" ("a", "b" or None) and "words";
        "only_in_one": tasks and metrics that one of them lacks, "level"}.

    Raises:
        ValueError: the runs are not about the same, or there is nothing to test.
    """
    pairs, lonely = pair_up(folder_a, folder_b, intersection=intersection)
    unknown = [name for name in metrics or () if name not in METRICS]
    if unknown:
        raise ValueError(f"there is no metric {', '.join(unknown)}; there are {', '.join(METRICS)}")
    tests: list[Row] = []
    for pair in pairs:
        for condition in conditions:
            tests += _tests(pair, condition, metrics, seed, lonely)
    if not tests:
        raise ValueError(
            f"nothing can be compared under {', '.join(conditions)}: the runs hold {', '.join(pairs[0].conditions)}"
        )
    tested = [row for row in tests if row["p"] is not None]
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = p
    for row in tests:
        row["better"] = _better(row)
        row["words"] = words(row)
    found = {
        "a": _of(folder_a, pairs[0].a),
        "b": _of(folder_b, pairs[0].b),
        "runs": [
            {
                "task": pair.name,
                "questions": len({row["sample_id"] for row in pair.scores_a}),
                "left_out": pair.left_out,
                "notes": list(pair.notes),
            }
            for pair in pairs
        ],
        "tests": tests,
        "only_in_one": lonely,
        "level": LEVEL,
        "seed": seed,
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "compare.json", found)
    write_atomic(out / "compare.md", markdown(found))
    return found


def _of(folder: Path, run: Mapping[str, Any]) -> Row:
    return {"folder": folder.name, "model": run["model"], "style": run.get("style")}


def _tests(pair: TwoRuns, condition: str, chosen: Sequence[str] | None, seed: int, lonely: list[str]) -> list[Row]:
    one = [row for row in pair.scores_a if row["condition"] == condition]
    other = [row for row in pair.scores_b if row["condition"] == condition]
    found: list[Row] = []
    for scorer, metric in METRICS.values():
        if metric.better == "neither" or not _wanted(metric, chosen):
            continue
        marked = [_marked(scorer, metric, rows) for rows in (one, other)]
        if not any(marked):
            continue
        if not all(marked):
            lonely.append(f"{pair.name or 'manifests'}: {metric.name} was marked in one run only")
            continue
        row = _test(metric, one, other, str(pair.a.get("cluster", "patient")), seed)
        if row is not None:
            found.append({"task": pair.name, "condition": condition, "tier": scorer.tier, **row})
    return found


def _wanted(metric: Metric, chosen: Sequence[str] | None) -> bool:
    """Whether a metric is tested: each of more than sixty of a report would be corrected for all the others."""
    if chosen is None:
        return metric.kinds != ("report",) or metric.name in FIRST
    return metric.name in chosen


def _marked(scorer: Scorer, metric: Metric, rows: Sequence[Row]) -> bool:
    of_kind = [row for row in rows if row["kind"] in metric.kinds]
    return bool(of_kind) and (not scorer.added or any(scorer.name in row.get("added", ()) for row in of_kind))


def _test(metric: Metric, one: Sequence[Row], other: Sequence[Row], cluster: str, seed: int) -> Row | None:
    left, right = by_sample(metric, one), by_sample(metric, other)
    shared = [sample for sample in left if sample in right]
    if not shared:
        return None
    rows = [left[sample][0] for sample in shared]
    found = compare_counts(
        np.array([left[sample][1] for sample in shared]),
        np.array([right[sample][1] for sample in shared]),
        clusters_of(rows, cluster).of(rows),
        metric.value,
        share=metric.share,
        seed=seed,
        resamples=metric.resamples,
        draws=min(DRAWS, 4 * metric.resamples) if metric.resamples < 2000 else DRAWS,
    )
    return {
        "metric": metric.name,
        "title": metric.title,
        "unit": metric.unit,
        "direction": metric.better,
        **asdict(found),
        "cluster": cluster,
        # A mark that says nothing of an answer says so of one run's answer and not of the other's.
        "scored_in_one": len(left.keys() ^ right.keys()),
        "p_holm": None,
    }


def _better(row: Row) -> str | None:
    """Which is better beyond chance, after Holm."""
    if row["p_holm"] is None or row["p_holm"] >= LEVEL or not row["difference"]:
        return None
    return "b" if (row["difference"] > 0) == (row["direction"] == "higher") else "a"


def _pages(run_a: Path, run_b: Path, out: Path, found: Mapping[str, Any]) -> list[Path]:
    """The cases of both runs side by side: compare.html, or a page for each task that both folders hold."""
    # Here, because the pages bring the drawing libraries with them.
    from medvlm.eval.report_comparison import write_comparison

    if (run_a / "run.json").exists():
        write_comparison(out / "compare.html", run_a, run_b, found)
        return [out / "compare.html"]
    shared = sorted(
        run.name for run in run_a.iterdir() if all((b / run.name / "run.json").exists() for b in (run_a, run_b))
    )
    for name in shared:
        write_comparison(out / f"{name}.html", run_a / name, run_b / name, found)
    return [out / f"{name}.html" for name in shared]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0 compared, 2 refused."""
    parser = argparse.ArgumentParser(
        prog="medvlm eval compare",
        description="Two runs over the same questions: what differs, and whether it is chance.",
    )
    parser.add_argument(
        "run_a", type=Path, metavar="RUN_A", help="a run folder, or a folder of several tasks' run folders"
    )
    parser.add_argument("run_b", type=Path, metavar="RUN_B", help="the other")
    parser.add_argument("--out", type=Path, help="where compare.json and compare.md go (default: RUN_B/compare-RUN_A)")
    parser.add_argument("--intersection", action="store_true", help="compare what both were asked, and count the rest")
    parser.add_argument(
        "--conditions", nargs="+", default=["image"], help="whose answers are compared (default: image)"
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        help="only these: fewer tests are corrected less (default: of reports the main ones, else all)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap and the randomisation")
    args = parser.parse_args(arguments)
    out = args.out or args.run_b / f"compare-{args.run_a.resolve().name}"
    try:
        found = compare(
            args.run_a, args.run_b, out, intersection=args.intersection, conditions=args.conditions,
            metrics=args.metrics, seed=args.seed,
        )  # fmt: skip
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown(found))
    pages = _pages(args.run_a, args.run_b, out, found)
    print(f"written: {', '.join(str(path) for path in (out / 'compare.json', out / 'compare.md', *pages))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
