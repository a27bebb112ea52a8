"""The evaluation of one model: generate, extract, score, aggregate, report, in one run folder.

The folder holds run.json, responses.jsonl (appended), extractions.jsonl, scores.jsonl, metrics.json, quarantine.jsonl
and report.html. An interrupted run goes on where it stopped; ``--rescore`` repeats all but the asking.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from medvlm.data_recipes.box_text import BoxForm, read_box, reference_boxes
from medvlm.data_recipes.errors import BadSample
from medvlm.eval.aggregate import aggregate
from medvlm.eval.controls import CONDITIONS, Condition
from medvlm.eval.extract import extract_rows
from medvlm.eval.found import Found
from medvlm.eval.gallery import gallery
from medvlm.eval.generate import Reader, generate
from medvlm.eval.models import Answerer, CheckpointModel, ConstantModel, OracleModel, ReplayModel
from medvlm.eval.plan import MAX_NEW_TOKENS, Item, Plan, make_plan, read_items
from medvlm.eval.report import write_report
from medvlm.eval.rows import Row, read_rows, write_json, write_rows
from medvlm.eval.score import score_rows


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides which requests a run holds; kept in run.json."""

    conditions: tuple[Condition, ...] = CONDITIONS
    limit: int | None = None
    control_report_limit: int | None = None
    max_new_tokens: int | Mapping[str, int] | None = None
    seed: int = 0

    def plan(self, items: Sequence[Item]) -> Plan:
        return make_plan(
            items,
            conditions=self.conditions,
            limit=self.limit,
            control_report_limit=self.control_report_limit,
            max_new_tokens=MAX_NEW_TOKENS if self.max_new_tokens is None else self.max_new_tokens,
            seed=self.seed,
        )


def oracle(manifests: Sequence[Path]) -> OracleModel:
    """An answerer that knows the references of ``manifests``."""
    items, _ = read_items(manifests)
    return OracleModel({item.sample.sample_id: item.question.answers[0] for item in items})


def evaluate(
    answerer: Answerer,
    manifests: Sequence[Path],
    out: Path,
    *,
    conditions: Sequence[Condition] = CONDITIONS,
    limit: int | None = None,
    control_report_limit: int | None = None,
    max_new_tokens: int | Mapping[str, int] | None = None,
    seed: int = 0,
    chunk_size: int = 16,
    read: Reader | None = None,
    train_metrics: Sequence[Path] | None = None,
    extra: Mapping[str, Mapping[str, Any]] | None = None,
    found: Found | None = None,
    gallery_size: int = 36,
    box_form: BoxForm = "box",
    show_progress: bool | None = None,
) -> dict[str, Any]:
    """Ask, score and report; return what metrics.json holds.

    Args:
        answerer: who answers.
        manifests: JSONL files of evaluation samples; paths in a manifest are relative to its folder.
        out: the run folder; belongs to one answerer.
        conditions: among image, no_image, swapped.
        limit: samples per manifest, spread by a seeded hash; None: all.
        control_report_limit: reports asked under each control condition; None: all.
        max_new_tokens: one number, or one by kind of question; None: plan.MAX_NEW_TOKENS.
        seed: of limit, swaps, bootstrap and gallery.
        chunk_size: requests between two writes to disk.
        read: of visuals; by default as generate.generate says, and whole ones for the pictures of the report.
        train_metrics: metrics.jsonl of training runs, for the report's plots.
        extra: further tables of the report.
        found: what the folder held that the manifests were made of, for the report.
        gallery_size: answers shown in the report.
        box_form: how the model writes boxes, see data_recipes.box_text.read_box.
        show_progress: None: only on a terminal.

    Raises:
        ValueError: no sample can be asked, ``out`` belongs to another model, nothing was answered, or ``box_form`` has
            no boxes of the kind that is asked for.
    """
    settings = Settings(
        conditions=tuple(conditions),
        limit=limit,
        control_report_limit=control_report_limit,
        max_new_tokens=max_new_tokens,
        seed=seed,
    )
    items, bad = read_items(manifests)
    if not items:
        first = f"; first reason: {bad[0]}" if bad else ""
        raise ValueError(
            f"no sample of {', '.join(map(str, manifests))} can be asked{first}; "
            "give manifests whose rows have a question"
        )
    _check_box_form(items, box_form)
    plan = settings.plan(items)
    _claim(out, answerer.name)
    generated = generate(answerer, plan.asks, out, chunk_size=chunk_size, read=read, show_progress=show_progress)
    write_rows(out / "quarantine.jsonl", [*_manifest_rows(bad), *generated.quarantined])
    return rescore(
        manifests, out, settings, model=answerer.name, read=read, train_metrics=train_metrics, extra=extra,
        found=found, gallery_size=gallery_size, box_form=box_form,
    )  # fmt: skip


def _check_box_form(items: Sequence[Item], form: BoxForm) -> None:
    """Refuse, before anything is asked, a form that cannot hold the boxes that are asked for."""
    for question in (item.question for item in items if item.question.kind == "box"):
        axes = len(reference_boxes(question.answers, question.extent_mm)[0].low)
        try:
            read_box("", axes=axes, form=form)
        except ValueError as error:
            raise ValueError(f"{error}; or give manifests without boxes of {axes} axes") from error


def _claim(out: Path, model: str) -> None:
    """Make ``out`` the run folder of ``model``, or refuse when it is another's: answers would be mixed."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "run.json"
    if path.exists():
        owner = json.loads(path.read_text(encoding="utf-8"))["model"]
        if owner != model:
            raise ValueError(f"{out} holds the answers of {owner!r}, not of {model!r}; give another folder with --out")
    else:
        write_json(path, {"model": model})


def _manifest_rows(bad: Sequence[BadSample]) -> list[Row]:
    return [{**problem.to_dict(), "condition": None, "stage": "manifest"} for problem in bad]


def rescore(
    manifests: Sequence[Path],
    out: Path,
    settings: Settings,
    *,
    model: str | None = None,
    read: Reader | None = None,
    train_metrics: Sequence[Path] | None = None,
    extra: Mapping[str, Mapping[str, Any]] | None = None,
    found: Found | None = None,
    gallery_size: int = 36,
    box_form: BoxForm = "box",
) -> dict[str, Any]:
    """Extract, score, aggregate and report the answers that ``out`` holds; asks nothing.

    Rows follow the plan, not the order of asking, so an interrupted run and a whole one write the same bytes.

    Raises:
        ValueError: no answer to any request of the plan.
    """
    if read is None:
        from medvlm.data_recipes.readers import read
    assert read is not None
    items, _ = read_items(manifests)
    by_name = {item.sample.sample_id: item for item in items}
    plan = settings.plan(items)
    answered = {row["request_id"]: row for row in read_rows(out / "responses.jsonl")}
    responses = [answered[ask.request_id] for ask in plan.asks if ask.request_id in answered]
    quarantine = read_rows(out / "quarantine.jsonl")
    if not responses:
        reasons = Counter(row["reason"] for row in quarantine).most_common(3)
        raise ValueError(f"none of {len(plan.asks)} requests was answered; most frequent reasons: {reasons}")
    questions = {name: (item.question, item.prompt) for name, item in by_name.items()}
    extractions = extract_rows(responses, questions, out, box_form)
    scores = score_rows(responses, extractions, by_name, out)
    model = model or json.loads((out / "run.json").read_text(encoding="utf-8"))["model"]
    with_visuals = [a for a in plan.asks if a.item.sample.visuals() and a.condition != "no_image"]
    run = {
        "model": model,
        "manifests": [str(path) for path in manifests],
        "conditions": list(settings.conditions),
        "limit": settings.limit,
        "seed": settings.seed,
        "splits": dict(sorted(Counter(item.sample.split for item in items).items())),
        "requests": len(plan.asks),
        "requests_with_visuals": len(with_visuals),
        "answered_with_visuals": sum(a.request_id in answered for a in with_visuals),
        "quarantined": len(quarantine),
    }
    metrics = aggregate(scores, out, not_asked=plan.not_asked, run=run, seed=settings.seed)
    shown = gallery(scores, responses, by_name, read, size=gallery_size, seed=settings.seed)
    write_report(out / "report.html", metrics, shown, quarantine, train_metrics, extra, found)
    return metrics


def every_visual_failed(metrics: Mapping[str, Any]) -> bool:
    """Whether visuals were to be shown and not one request with a visual was answered."""
    return metrics["run"]["requests_with_visuals"] > 0 and metrics["run"]["answered_with_visuals"] == 0


def _answerer(name: str, manifests: Sequence[Path], device: str | None, batch_size: int) -> Answerer:
    kind, _, rest = name.partition(":")
    if name == "oracle":
        return oracle(manifests)
    if kind == "constant":
        return ConstantModel(rest)
    if kind == "replay":
        return ReplayModel(Path(rest))
    return CheckpointModel(name, device=device, batch_size=batch_size)


def _dry_run(plan: Plan, bad: Sequence[BadSample]) -> None:
    counts = Counter((a.condition, a.item.dimension, a.item.question.kind) for a in plan.asks)
    for (condition, dimension, kind), count in sorted(counts.items()):
        print(f"{condition:10} {dimension:6} {kind:7} {count:6}")
    for name, reasons in plan.not_asked.items():
        for reason, count in reasons.items():
            print(f"{name:10} not asked {count:6}: {reason}")
    for problem in bad[:10]:
        print(f"unusable: {problem}")
    print(f"{len(plan.asks)} requests; {len(bad)} unusable rows")
    if plan.asks:
        ask = plan.asks[0]
        print(f"\nfirst request {ask.request_id}, sample {ask.item.sample.sample_id}:")
        for turn in ask.turns:
            for part in turn.content:
                print(f"  {turn.role}: {part if isinstance(part, str) else f'<{part.kind} {part.path}>'}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="medvlm eval", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", help="checkpoint folder or hub id; oracle; constant:TEXT; replay:RESPONSES.jsonl (not for --rescore)"
    )
    parser.add_argument("--data", nargs="+", type=Path, required=True, help="manifests of evaluation samples")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    parser.add_argument("--limit", type=int, help="samples per manifest")
    parser.add_argument("--control-report-limit", type=int, help="reports asked under each control condition")
    parser.add_argument("--max-new-tokens", type=int, help="room for every answer; by kind of question by default")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", help="cuda, cpu, ...; the GPU when there is one by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gallery", type=int, default=36, help="answers shown in the report")
    parser.add_argument("--train-metrics", nargs="*", type=Path, help="metrics.jsonl of training runs, plotted")
    parser.add_argument("--box-form", choices=get_args(BoxForm), default="box", help="how the model writes boxes")
    parser.add_argument("--rescore", action="store_true", help="score the answers that --out holds; asks nothing")
    parser.add_argument("--dry-run", action="store_true", help="show what would be asked, and ask nothing")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 when something was scored with its visuals, 1 otherwise."""
    parser = _parser()
    args = parser.parse_args(arguments)
    settings = Settings(
        conditions=tuple(args.conditions),
        limit=args.limit,
        control_report_limit=args.control_report_limit,
        max_new_tokens=args.max_new_tokens,
        seed=args.seed,
    )
    if args.dry_run:
        items, bad = read_items(args.data)
        plan = settings.plan(items)
        _dry_run(plan, bad)
        return 0 if plan.asks else 1
    try:
        if args.rescore:
            metrics = rescore(
                args.data, args.out, settings, train_metrics=args.train_metrics, gallery_size=args.gallery,
                box_form=args.box_form,
            )  # fmt: skip
        else:
            if args.model is None:
                parser.error("--model is needed unless --rescore or --dry-run is given")
            metrics = evaluate(
                _answerer(args.model, args.data, args.device, args.batch_size), args.data, args.out,
                conditions=settings.conditions, limit=args.limit, control_report_limit=args.control_report_limit,
                max_new_tokens=args.max_new_tokens, seed=args.seed, chunk_size=2 * args.batch_size,
                train_metrics=args.train_metrics, gallery_size=args.gallery, box_form=args.box_form,
            )  # fmt: skip
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, value in metrics["headline"].items():
        if value is not None:
            print(f"{name:32} {value:.4f}")
    counts, run = metrics["counts"], metrics["run"]
    print(
        f"{counts['responses']} answers, {counts['unparsed']} unreadable, {counts['truncated']} cut off, "
        f"{run['quarantined']} quarantined; report: {args.out / 'report.html'}"
    )
    if every_visual_failed(metrics):
        print(f"error: not one visual could be shown; see {args.out / 'quarantine.jsonl'}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
