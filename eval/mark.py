"""Marks that need more than the run folder: learned models in a process of their own, METEOR's program, a judge.

    medvlm eval mark RUN --with radgraph bertscore --python /envs/reports/bin/python
    medvlm eval mark RUN --with judge --judge http://127.0.0.1:8000/v1#MODEL_ID

They are appended to marks.NAME.jsonl as they come, and a killed command goes on where it stopped. Then the run is
aggregated and reported anew.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medvlm.eval.endpoint import EndpointModel, EndpointOptions, endpoint_from
from medvlm.eval.marking import ADDED, Marking, mark
from medvlm.eval.marks import marks_path
from medvlm.eval.rows import read_rows
from medvlm.eval.scorers.judge import Judge
from medvlm.eval.scorers.learned import LEARNED
from medvlm.eval.stages import aggregate_stage, report_stage


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="medvlm eval mark", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, the --out of medvlm eval run")
    parser.add_argument("--with", dest="names", nargs="+", required=True, metavar="NAME", choices=sorted(ADDED),
                        help=f"who marks: {', '.join(sorted(ADDED))}")  # fmt: skip
    parser.add_argument("--python", action="append", default=[], metavar="[NAME=]PATH",
                        help="Python of the environment with the scorer's package; this one by default")  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="NAME.KEY=VALUE",
                        help="setting of a learned scorer, such as radgraph.model=radgraph")  # fmt: skip
    parser.add_argument("--conditions", nargs="+", default=["image"], help="whose answers are marked")
    parser.add_argument("--silence", type=float, default=1800.0, help="seconds after which a silent scorer is ended")
    parser.add_argument("--judge", metavar="URL#MODEL_ID", help="OpenAI-compatible endpoint of the judge")
    parser.add_argument("--judge-cache", type=Path, help="file of judgements that several runs share")
    parser.add_argument("--key-variable", default="OPENAI_API_KEY", help="environment variable with the judge's key")
    parser.add_argument("--concurrency", type=int, default=8, help="judgements asked at a time")
    parser.add_argument("--approved-endpoint", nargs="*", default=[], metavar="HOST",
                        help="hosts that the terms of the data allow; no others get closed data")  # fmt: skip
    parser.add_argument("--again", action="store_true", help="mark everything anew, also what other settings marked")
    return parser


def _marking(args: argparse.Namespace) -> Marking:
    python = {
        name if eq else "": Path(path if eq else name) for name, eq, path in (t.partition("=") for t in args.python)
    }
    settings: dict[str, dict[str, Any]] = {}
    for text in args.set:
        key, _, value = text.partition("=")
        name, _, setting = key.partition(".")
        if name not in LEARNED or not setting or not value:
            raise ValueError(f"--set {text}: write NAME.KEY=VALUE with a NAME of {', '.join(LEARNED)}")
        settings.setdefault(name, {})[setting] = value
    judge = endpoint = None
    if args.judge:
        url, model = endpoint_from(args.judge)
        options = EndpointOptions(
            concurrency=args.concurrency, key_variable=args.key_variable, approved=tuple(args.approved_endpoint)
        )
        judge, endpoint = Judge(model=model, url=url), EndpointModel(url, model, options)
    return Marking(
        conditions=tuple(args.conditions), python=python, settings=settings, silence_s=args.silence, judge=judge,
        endpoint=endpoint, cache=args.judge_cache, approved=tuple(args.approved_endpoint), again=args.again,
    )  # fmt: skip


def _commonest(path: Path) -> str:
    """The most frequent flag of a file of marks, which says why nothing was scored."""
    flags = Counter(flag for row in read_rows(path) for flag in row.get("flags", ()))
    return str(flags.most_common(1)[0][0]) if flags else "nothing was there to score"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 when every scorer marked something of every run, 1 when not every one did, 2 when refused."""
    args = _parser().parse_args(arguments)
    status, refused = 0, 0
    try:
        how = _marking(args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for out in args.runs:
        changed = False
        for name in args.names:
            try:
                done = mark(out, name, how)
            except ValueError as error:
                print(f"error: {out}: {error}", file=sys.stderr)
                status, refused = 1, refused + 1
                changed |= marks_path(out, name).exists()
                continue
            changed = True
            print(f"{out}: {name}: {done['scored']} scored ({done['new']} now), {done['unscored']} unscored")
            if not done["scored"]:
                why = f"{_commonest(marks_path(out, name))}; see flags in {marks_path(out, name)}"
                print(f"error: {out}: {name} could score nothing: {why}", file=sys.stderr)
                status = 1
        if changed:
            aggregate_stage(out)
            report_stage(out)
    return 2 if refused == len(args.runs) * len(args.names) else status


if __name__ == "__main__":
    raise SystemExit(main())
