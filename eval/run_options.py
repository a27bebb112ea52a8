"""The command line of `medvlm eval run`: its options, and what they mean."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from medvlm.data_recipes.box_text import BoxForm
from medvlm.data_recipes.errors import BadSample
from medvlm.eval.choose_model import DTYPES, NAMES, AnswerBy, ModelOptions
from medvlm.eval.controls import CONDITIONS
from medvlm.eval.endpoint import EndpointOptions
from medvlm.eval.page_options import add_page_options, whole
from medvlm.eval.plan import Plan
from medvlm.eval.prompts import STYLES
from medvlm.eval.slice_sets import SlicePolicy


def parser_of(about: str) -> argparse.ArgumentParser:
    """The parser; ``about``: what the command does."""
    parser = argparse.ArgumentParser(prog="medvlm eval run", description=about)
    parser.add_argument("--model", help=NAMES + "; not needed for --dry-run")
    parser.add_argument("--data", nargs="+", type=Path, help="manifests of evaluation samples; or give --task")
    parser.add_argument("--task", nargs="+", help="benchmarks by name, see medvlm eval list; NAME or NAME=FOLDER")
    parser.add_argument("--root", type=Path, default=Path("benchmarks"), help="holds the folder of each task")
    parser.add_argument("--partial", action="store_true", help="ask a task of which not every question is there")
    parser.add_argument("--out", type=Path, required=True, help="run folder; of tasks: holds one run folder each")
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    parser.add_argument("--limit", type=whole(1), help="samples per manifest or task")
    parser.add_argument(
        "--control-limit", type=whole(0), default=200, help="samples per manifest or task under each control condition"
    )
    parser.add_argument("--control-report-limit", type=whole(0), help="reports asked under each control condition")
    parser.add_argument("--max-new-tokens", type=whole(1), help="room for every answer; by kind of question by default")
    parser.add_argument("--style", choices=STYLES, default="plain", help="how the answer is asked for")
    parser.add_argument("--batch-size", type=whole(1), default=8, help="requests that a model here answers at once")
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights of a model that runs here; float32 by default")
    parser.add_argument(
        "--confidence", action="store_true", help="keep how sure the model is of its answer; for calibration"
    )
    parser.add_argument(
        "--answer-by",
        choices=get_args(AnswerBy),
        default="text",
        help="likelihood: questions with choices are answered by the most likely choice, not by what the model writes",
    )
    parser.add_argument(
        "--slices",
        type=SlicePolicy.from_text,
        metavar="POLICY",
        help="show volumes and clips as pictures, for example slices=12,plane=axial,windows=lung+bone,frames=8",
    )
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run code that comes with a transformers: model"
    )
    asking = parser.add_argument_group("of endpoint: models")
    asking.add_argument("--concurrency", type=whole(1), default=8, help="requests on their way at a time")
    asking.add_argument("--timeout", type=float, default=300, help="seconds for one answer")
    asking.add_argument("--retries", type=whole(0), default=6, help="of a request that failed in a way that may pass")
    asking.add_argument("--key-variable", default="OPENAI_API_KEY", help="environment variable that holds the key")
    asking.add_argument("--price", nargs=2, type=float, default=(0.0, 0.0), metavar=("IN", "OUT"), help="per million")
    asking.add_argument("--extra-body", type=json.loads, help="JSON object of further fields of the request")
    asking.add_argument(
        "--approved-endpoint", nargs="*", default=[], metavar="HOST", help="may get data not open to all"
    )
    parser.add_argument("--device", help="cuda, cpu, ...; the GPU when there is one by default")
    parser.add_argument("--seed", type=int, default=0)
    add_page_options(parser)
    parser.add_argument("--train-metrics", nargs="*", type=Path, help="metrics.jsonl of training runs, plotted")
    parser.add_argument("--box-form", choices=get_args(BoxForm), default="box", help="how the model writes boxes")
    parser.add_argument("--dry-run", action="store_true", help="show what would be asked, and ask nothing")
    return parser


def model_options(args: argparse.Namespace, device: str | None) -> ModelOptions:
    """How the model answers.

    Args:
        device: that this process uses.
    """
    return ModelOptions(
        device=device,
        batch_size=args.batch_size,
        dtype=args.dtype,
        confidence=args.confidence,
        answer_by=args.answer_by,
        slices=args.slices,
        trust_remote_code=args.trust_remote_code,
        endpoint=EndpointOptions(
            concurrency=args.concurrency,
            timeout_s=args.timeout,
            retries=args.retries,
            key_variable=args.key_variable,
            input_price=args.price[0],
            output_price=args.price[1],
            extra=args.extra_body,
            approved=tuple(args.approved_endpoint),
        ),
    )


def show_plan(plan: Plan, bad: Sequence[BadSample]) -> None:
    """What a run would ask, for --dry-run."""
    counts = Counter((a.condition, a.item.dimension, a.item.question.kind) for a in plan.asks)
    for (condition, dimension, kind), count in sorted(counts.items()):
        print(f"{condition:16} {dimension:6} {kind:7} {count:6}")
    for name, reasons in plan.not_asked.items():
        for reason, count in reasons.items():
            print(f"{name:16} not asked {count:6}: {reason}")
    for problem in bad[:10]:
        print(f"unusable: {problem}")
    print(f"{len(plan.asks)} requests; {len(bad)} unusable rows")
    if plan.asks:
        ask = plan.asks[0]
        print(f"\nfirst request {ask.request_id}, sample {ask.item.sample.sample_id}:")
        for turn in ask.turns:
            for part in turn.content:
                print(f"  {turn.role}: {part if isinstance(part, str) else f'<{part.kind} {part.path}>'}")
