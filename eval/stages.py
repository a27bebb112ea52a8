"""The stages after generate, each alone: they read the run folder only, and write the same bytes each time."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from medvlm.data_recipes.box_text import BoxForm
from medvlm.eval.aggregate import aggregate
from medvlm.eval.cases import AnsweredRun, browse
from medvlm.eval.collector import without_collector
from medvlm.eval.extract import extract_rows
from medvlm.eval.found import Found
from medvlm.eval.generate import Reader
from medvlm.eval.marks import with_marks
from medvlm.eval.page_options import MEDIA_MEGABYTES, PICTURED, add_page_options
from medvlm.eval.plan import Ask
from medvlm.eval.report import write_report
from medvlm.eval.report_plots import lengths_of
from medvlm.eval.rows import Row, read_rows, write_json
from medvlm.eval.run_folder import asked_in, read_plan, read_run, reasons_of, responses_of, shown_in
from medvlm.eval.score import score_rows


def answered_in(out: Path, asks: Sequence[Ask]) -> list[Row]:
    """The responses to ``asks`` in their order: an interrupted run and a whole one write the same bytes.

    Raises:
        ValueError: not one was answered.
    """
    known = {row["request_id"]: row for row in responses_of(out)}
    responses = [known[ask.request_id] for ask in asks if ask.request_id in known]
    if not responses:
        reasons = reasons_of(read_rows(out / "quarantine.jsonl"))
        raise ValueError(f"none of {len(asks)} requests was answered; most frequent reasons: {reasons}")
    return responses


@without_collector()
def extract_stage(out: Path, asks: Sequence[Ask] | None = None) -> list[Row]:
    """responses -> extractions.jsonl. ``asks``: as read_plan reads them, where that was done already."""
    asks = read_plan(out) if asks is None else asks
    form: BoxForm = read_run(out)["box_form"]
    return extract_rows(answered_in(out, asks), asked_in(asks), out, form)


@without_collector()
def score_stage(out: Path, asks: Sequence[Ask] | None = None) -> list[Row]:
    """responses and extractions -> scores.jsonl. ``asks``: as read_plan reads them, where that was done already."""
    asks = read_plan(out) if asks is None else asks
    items = {ask.item.sample.sample_id: ask.item for ask in asks}
    extractions = read_rows(out / "extractions.jsonl")
    return score_rows(answered_in(out, asks), extractions, items, out, asked=asked_in(asks))


def scores_of(out: Path) -> list[Row]:
    """The rows of scores.jsonl with what ``medvlm eval mark`` added in marks.*.jsonl.

    Raises:
        ValueError: the score stage has not run.
    """
    scores = read_rows(out / "scores.jsonl")
    if not scores:
        raise ValueError(f"{out} has no scores.jsonl; run medvlm eval score {out}")
    return with_marks(out, scores)


@without_collector()
def aggregate_stage(out: Path) -> dict[str, Any]:
    """scores -> metrics.json."""
    run, shown = read_run(out), shown_in(out)
    answered = {row["request_id"] for row in responses_of(out)}
    counted = {
        "requests": len(shown),
        "requests_with_visuals": sum(shown.values()),
        "answered_with_visuals": sum(visual and name in answered for name, visual in shown.items()),
        "unanswered": sum(name not in answered for name in shown),
        "quarantined": len(read_rows(out / "quarantine.jsonl")),
    }
    return aggregate(
        scores_of(out), out, not_asked=run["not_asked"], run=run | counted, cluster=run["cluster"], seed=run["seed"]
    )


def report_stage(
    out: Path,
    *,
    read: Reader | None = None,
    train_metrics: Sequence[Path] | None = None,
    extra: Mapping[str, Mapping[str, Any]] | None = None,
    found: Found | None = None,
    gallery_size: int = PICTURED,
    media_megabytes: float = MEDIA_MEGABYTES,
    asks: Sequence[Ask] | None = None,
) -> None:
    """metrics, scores and the visuals -> report.html.

    Args:
        asks: as read_plan reads them, where that was done already.
        gallery_size: cases that show their picture; all cases (up to cases.MOST_CASES) show their texts.
        media_megabytes: that pictures, scans and clips may take in the page.
    """
    if read is None:
        from medvlm.data_recipes.readers import read
    assert read is not None
    asks, scores = read_plan(out) if asks is None else asks, scores_of(out)
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    run, responses = metrics["run"], answered_in(out, asks)  # in the order of the plan, whoever asked what, and when
    browser = browse(
        [AnsweredRun(name=run["model"], asks=asks, scores=scores, responses=responses)],
        read, pictured=gallery_size, megabytes=media_megabytes, seed=run["seed"],
    )  # fmt: skip
    write_report(
        out / "report.html", metrics, browser, read_rows(out / "quarantine.jsonl"), train_metrics, extra, found,
        lengths=lengths_of(asks, responses),
    )  # fmt: skip


def rescore(out: Path, **report: Any) -> dict[str, Any]:
    """All four stages; asks nothing. ``report``: arguments of report_stage."""
    asks = read_plan(out)
    extract_stage(out, asks)
    score_stage(out, asks)
    metrics = aggregate_stage(out)
    report_stage(out, asks=asks, **report)
    return metrics


_STAGES: dict[str, tuple[Callable[..., Any], str]] = {
    "extract": (extract_stage, "read the answers out of what was written"),
    "score": (score_stage, "mark the extracted answers"),
    "aggregate": (aggregate_stage, "sum the marks up, with intervals"),
    "report": (report_stage, "write report.html"),
    "rescore": (rescore, "extract, score, aggregate and report"),
}


def _command(name: str, arguments: Sequence[str] | None) -> int:
    stage, what = _STAGES[name]
    parser = argparse.ArgumentParser(prog=f"medvlm eval {name}", description=f"Of finished or stopped runs: {what}.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, the --out of medvlm eval run")
    if name in ("extract", "rescore"):
        parser.add_argument(
            "--box-form", choices=get_args(BoxForm), help="how the model writes boxes, if not as in run.json"
        )
    if name in ("report", "rescore"):
        add_page_options(parser)
    args = parser.parse_args(arguments)
    shown = {}
    if name in ("report", "rescore"):
        shown = {"gallery_size": args.gallery, "media_megabytes": args.media_megabytes}
    refused = 0
    for out in args.runs:
        try:
            if getattr(args, "box_form", None):
                write_json(out / "run.json", read_run(out) | {"box_form": args.box_form})
            stage(out, **shown)
            print(f"{name}: {out}")
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            refused += 1
    return 0 if not refused else 2 if refused == len(args.runs) else 1


def extract_main(arguments: Sequence[str] | None = None) -> int:
    return _command("extract", arguments)


def score_main(arguments: Sequence[str] | None = None) -> int:
    return _command("score", arguments)


def aggregate_main(arguments: Sequence[str] | None = None) -> int:
    return _command("aggregate", arguments)


def report_main(arguments: Sequence[str] | None = None) -> int:
    return _command("report", arguments)


def rescore_main(arguments: Sequence[str] | None = None) -> int:
    return _command("rescore", arguments)
