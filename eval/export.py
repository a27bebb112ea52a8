"""Runs in the forms of others: ReXrank predictions, lm-eval results, inspect logs, and tables for papers.

medvlm eval export RUN ... --to csv|markdown|latex --out FILE
medvlm eval export RUN --to rexrank|lm-eval|inspect --out FOLDER
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medvlm.data_recipes.manifest import write_atomic
from medvlm.eval import inspect_log, lm_eval_results, rexrank
from medvlm.eval.result_tables import TABLES
from medvlm.eval.rows import Row, write_json, write_rows
from medvlm.eval.run_folder import read_plan, responses_of
from medvlm.eval.stages import scores_of

FORMS = (*TABLES, "rexrank", "lm-eval", "inspect")


def metrics_of(out: Path) -> dict[str, Any]:
    """metrics.json of a run.

    Raises:
        ValueError: there is none.
    """
    path = out / "metrics.json"
    if not path.is_file():
        raise ValueError(f"{out} has no metrics.json; run medvlm eval rescore {out}")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _slug(metrics: Mapping[str, Any]) -> str:
    task = (metrics["run"]["task"] or "own-questions").replace("@", "_v")
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in task)


def export(out: Path, form: str, target: Path) -> list[Path]:
    """Write one run in the form of another harness below ``target``; the files written.

    Args:
        form: rexrank, lm-eval or inspect.

    Raises:
        ValueError: the run has no such form.
    """
    if form == "rexrank":
        target.mkdir(parents=True, exist_ok=True)
        path = target / "predictions.json"
        write_json(path, rexrank.predictions_from(out))
        return [path]
    metrics, asks = metrics_of(out), read_plan(out)
    responses: dict[str, Row] = {row["request_id"]: row for row in responses_of(out)}
    scores: dict[str, Row] = {row["request_id"]: row for row in scores_of(out)}
    target.mkdir(parents=True, exist_ok=True)
    if form == "lm-eval":
        paths = [target / f"results_{_slug(metrics)}.json", target / f"samples_{_slug(metrics)}.jsonl"]
        write_json(paths[0], lm_eval_results.results(metrics))
        write_rows(paths[1], lm_eval_results.samples(asks, responses, scores))
        return paths
    written = max(path.stat().st_mtime for path in out.glob("responses.rank*.jsonl"))
    created = datetime.fromtimestamp(written, UTC).isoformat(timespec="seconds")
    # Its viewer lists files only that are named like its own: when, which task, which id.
    started = created.replace(":", "-")
    path = target / f"{started}_{_slug(metrics)}_{metrics['run']['ids_sha256'][:22]}.json"
    write_json(path, inspect_log.log(metrics, asks, responses, scores, created))
    return [path]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 2 when a run cannot be exported."""
    parser = argparse.ArgumentParser(
        prog="medvlm eval export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="+", type=Path, help="run folders, the --out of medvlm eval run")
    parser.add_argument("--to", choices=FORMS, required=True)
    parser.add_argument("--out", type=Path, required=True, help="file of a table, folder of the others")
    args = parser.parse_args(arguments)
    try:
        if args.to in TABLES:
            _, write = TABLES[args.to]
            args.out.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(args.out, write([metrics_of(run) for run in args.run]))
            paths = [args.out]
        else:
            if len(args.run) > 1:
                parser.error(f"--to {args.to} takes one run at a time")
            paths = export(args.run[0], args.to, args.out)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path in paths:
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
