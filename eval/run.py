"""The evaluation of one model: generate, extract, score, aggregate, report, in one run folder.

An interrupted run goes on where it stopped. ``medvlm eval rescore`` repeats all but the asking.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medvlm.data_recipes.box_text import BoxForm, read_box, reference_boxes
from medvlm.data_recipes.errors import BadSample
from medvlm.eval.choose_model import choose_model
from medvlm.eval.controls import CONDITIONS, Condition
from medvlm.eval.found import Found
from medvlm.eval.generate import Reader, generate
from medvlm.eval.media_hashes import name_by_content
from medvlm.eval.models import Answerer, Remote, settings_of
from medvlm.eval.page_options import MEDIA_MEGABYTES, PICTURED
from medvlm.eval.plan import MAX_NEW_TOKENS, Item, Plan, make_plan, read_items
from medvlm.eval.prompts import Style
from medvlm.eval.quarantine import gather
from medvlm.eval.ranks import ALONE, OtherRankEnded, Ranks, launched
from medvlm.eval.run_folder import claim, read_plan, write_plan
from medvlm.eval.run_options import model_options, parser_of, show_plan
from medvlm.eval.stages import rescore
from medvlm.eval.task import Loaded, fingerprint, ids_sha256, load
from medvlm.eval.tasks.catalogue import task_named
from medvlm.eval.told import lines_of


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides which requests a run holds; kept in run.json.

    Attributes:
        conditions: among controls.CONDITIONS.
        limit: samples per manifest or task, spread by a seeded hash; None: all.
        control_limit: samples per manifest or task asked under each control condition; None: all.
        control_report_limit: reports asked under each control condition; None: all.
        max_new_tokens: one number, or one by kind of question; None: plan.MAX_NEW_TOKENS.
        style: how the answer is asked for, see prompts.py.
        seed: of limit, swaps, bootstrap and gallery.
        box_form: how the model writes boxes, see data_recipes.box_text.read_box.
    """

    conditions: tuple[Condition, ...] = CONDITIONS
    limit: int | None = None
    control_limit: int | None = 200
    control_report_limit: int | None = None
    max_new_tokens: int | Mapping[str, int] | None = None
    style: Style = "plain"
    seed: int = 0
    box_form: BoxForm = "box"

    def plan(self, items: Sequence[Item]) -> Plan:
        return make_plan(
            items,
            conditions=self.conditions,
            limit=self.limit,
            control_limit=self.control_limit,
            control_report_limit=self.control_report_limit,
            max_new_tokens=MAX_NEW_TOKENS if self.max_new_tokens is None else self.max_new_tokens,
            style=self.style,
            seed=self.seed,
        )


def evaluate(
    answerer: Answerer,
    manifests: Sequence[Path],
    out: Path,
    settings: Settings | None = None,
    *,
    chunk_size: int = 16,
    read: Reader | None = None,
    ranks: Ranks = ALONE,
    train_metrics: Sequence[Path] | None = None,
    extra: Mapping[str, Mapping[str, Any]] | None = None,
    found: Found | None = None,
    gallery_size: int = PICTURED,
    media_megabytes: float = MEDIA_MEGABYTES,
    show_progress: bool | None = None,
) -> dict[str, Any]:
    """Ask the questions of manifests, score and report; return what metrics.json holds.

    Args:
        answerer: who answers.
        manifests: JSONL files of evaluation samples; paths in a manifest are relative to its folder.
        out: the run folder; belongs to one answerer.
        chunk_size: requests between two writes to disk.
        read: of visuals; by default as generate.generate says, and whole ones for the pictures of the report.
        ranks: this process among those that share the asking; all of them must call this.
        train_metrics: metrics.jsonl of training runs, for the report's plots.
        extra: further tables of the report.
        found: what the folder held that the manifests were made of, for the report.
        gallery_size: cases that show their picture in the report.
        media_megabytes: that these pictures may take.
        show_progress: None: only on a terminal.

    Raises:
        ValueError: no sample can be asked, ``out`` belongs to another model, nothing was answered, or the box form has
            no boxes of the kind that is asked for.
    """
    items, bad = read_items(manifests)
    if not items:
        first = f"; first reason: {bad[0]}" if bad else ""
        raise ValueError(
            f"no sample of {', '.join(map(str, manifests))} can be asked{first}; "
            "give manifests whose rows have a question"
        )
    about = {"task": None, "manifests": [str(path) for path in manifests], "cluster": "patient"}
    return _evaluate(
        answerer, items, bad, out, settings or Settings(), about, chunk_size=chunk_size, read=read, ranks=ranks,
        show_progress=show_progress, train_metrics=train_metrics, extra=extra, found=found, gallery_size=gallery_size,
        media_megabytes=media_megabytes,
    )  # fmt: skip


def evaluate_task(
    answerer: Answerer,
    loaded: Loaded,
    out: Path,
    settings: Settings | None = None,
    *,
    chunk_size: int = 16,
    read: Reader | None = None,
    ranks: Ranks = ALONE,
    gallery_size: int = PICTURED,
    media_megabytes: float = MEDIA_MEGABYTES,
    show_progress: bool | None = None,
) -> dict[str, Any]:
    """Ask the questions of a task, score and report; return what metrics.json holds. Arguments as in ``evaluate``."""
    task = loaded.task
    about = {
        "task": task.label,
        "fingerprint": fingerprint(task),
        "title": task.title,
        "access": task.access,
        "differs": loaded.differs,
        "published": [asdict(figure) for figure in task.published],
        "cluster": task.cluster,
    }
    return _evaluate(
        answerer, loaded.items, loaded.bad, out, settings or Settings(), about, chunk_size=chunk_size, read=read,
        ranks=ranks, show_progress=show_progress, gallery_size=gallery_size, media_megabytes=media_megabytes,
    )  # fmt: skip


def _evaluate(
    answerer: Answerer,
    items: Sequence[Item],
    bad: Sequence[BadSample],
    out: Path,
    settings: Settings,
    about: Mapping[str, Any],
    *,
    chunk_size: int,
    read: Reader | None,
    ranks: Ranks,
    show_progress: bool | None,
    **report: Any,
) -> dict[str, Any]:
    _check_box_form(items, settings.box_form)
    only = getattr(answerer, "only_conditions", settings.conditions)
    settings = replace(settings, conditions=tuple(one for one in settings.conditions if one in only))
    if isinstance(answerer, Remote):
        answerer.check_access(about.get("access"))

    def begin() -> None:
        plan = name_by_content(settings.plan(items), show_progress=show_progress)
        claim(out, run_row(answerer, items, settings, plan, about))
        write_plan(out, plan)
        gather(out, plan.asks, bad)

    def end() -> None:
        gather(out, asks, bad)
        rescore(out, read=read, **report)

    ranks.by_first(begin)
    asks = read_plan(out)
    ranks.same("requests", "".join(ask.request_id for ask in asks))
    generate(answerer, asks, out, chunk_size=chunk_size, read=read, ranks=ranks, show_progress=show_progress)
    ranks.by_first(end)
    return dict(json.loads((out / "metrics.json").read_text(encoding="utf-8")))


def run_row(
    answerer: Answerer, items: Sequence[Item], settings: Settings, plan: Plan, about: Mapping[str, Any]
) -> dict[str, Any]:
    """What run.json holds."""
    return {
        "model": answerer.name,
        "answering": settings_of(answerer),
        **about,
        "style": settings.style,
        "conditions": list(settings.conditions),
        "limit": settings.limit,
        "seed": settings.seed,
        "box_form": settings.box_form,
        "splits": dict(sorted(Counter(item.sample.split for item in items).items())),
        "ids_sha256": ids_sha256([item.sample.sample_id for item in items]),
        "not_asked": plan.not_asked,
        "versions": {name: version(name) for name in ("medvlm", "torch", "transformers")}
        | {"python": platform.python_version()},
    }


def _check_box_form(items: Sequence[Item], form: BoxForm) -> None:
    """Refuse, before anything is asked, a form that cannot hold the boxes that are asked for."""
    for question in (item.question for item in items if item.question.kind == "box"):
        axes = len(reference_boxes(question.answers, question.extent_mm)[0].low)
        try:
            read_box("", axes=axes, form=form)
        except ValueError as error:
            raise ValueError(f"{error}; or give manifests without boxes of {axes} axes") from error


def every_visual_failed(metrics: Mapping[str, Any]) -> bool:
    """Whether visuals were to be shown and not one request with a visual was answered."""
    return metrics["run"]["requests_with_visuals"] > 0 and metrics["run"]["answered_with_visuals"] == 0


def _dry_run_all(settings: Settings, tasks: Sequence[Loaded], manifests: Sequence[Path]) -> int:
    """Show what would be asked; 1 when it is nothing."""
    plans = [(one.task.label, settings.plan(one.items), one.bad) for one in tasks]
    if not tasks:
        items, bad = read_items(manifests)
        plans = [("", settings.plan(items), tuple(bad))]
    for label, plan, unusable in plans:
        if label:
            print(label)
        show_plan(plan, unusable)
    return 0 if all(plan.asks for _, plan, _ in plans) else 1


def _check_paths(args: argparse.Namespace) -> None:
    """Refuse, before a model is loaded, files that are not there."""
    for path in args.data or ():
        if not path.is_file():
            raise ValueError(f"--data {path} is no file; give a manifest (JSON lines), such as medvlm data walk writes")
    for path in args.train_metrics or ():
        if not path.is_file():
            raise ValueError(f"--train-metrics {path} is no file; give the metrics.jsonl of a training run")
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"--out {args.out} is a file; give a folder")


def _loaded(args: argparse.Namespace) -> list[Loaded]:
    """Every task, read before the first is asked."""
    found = []
    names = [given.partition("=")[0] for given in args.task]
    for given in args.task:
        name, _, folder = given.partition("=")
        if names.count(name) > 1:
            raise ValueError(
                f"--task names {name} {names.count(name)} times, which would share a run folder; name it once"
            )
        found.append(load(task_named(name), Path(folder) if folder else args.root, partial=args.partial))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 done, 1 done but a question has no answer (under a launcher: no visual was shown), 2 refused."""
    parser = parser_of(__doc__.splitlines()[0])
    args = parser.parse_args(arguments)
    if bool(args.data) == bool(args.task):
        parser.error("give either --data MANIFEST ... or --task NAME ...")
    if args.model is None and not args.dry_run:
        parser.error("--model is needed unless --dry-run is given")
    settings = Settings(
        conditions=tuple(args.conditions),
        limit=args.limit,
        control_limit=args.control_limit,
        control_report_limit=args.control_report_limit,
        max_new_tokens=args.max_new_tokens,
        style=args.style,
        seed=args.seed,
        box_form=args.box_form,
    )
    try:
        _check_paths(args)
        tasks = _loaded(args) if args.task else []
        if args.dry_run:
            return _dry_run_all(settings, tasks, args.data)
        with launched() as ranks:
            runs = _run_all(args, settings, tasks, ranks)
            if not ranks.first:
                return 0
            status = max(_tell(out, metrics) for out, metrics in runs.items())
            # A launcher takes any code but 0 for a crash, and buries the figures below its own message.
            unanswered = any(metrics["run"]["unanswered"] for metrics in runs.values())
            return max(status, int(unanswered and ranks.world_size == 1))
    except OtherRankEnded as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run_all(
    args: argparse.Namespace, settings: Settings, tasks: Sequence[Loaded], ranks: Ranks
) -> dict[Path, dict[str, Any]]:
    """Run folder -> metrics."""
    options = model_options(args, ranks.device(args.device))
    answerer = ranks.together(lambda: choose_model(args.model, options))
    at_once = args.concurrency if isinstance(answerer, Remote) else args.batch_size
    shared: dict[str, Any] = {
        "chunk_size": 2 * at_once,
        "gallery_size": args.gallery,
        "media_megabytes": args.media_megabytes,
        "ranks": ranks,
    }
    if not tasks:
        return {args.out: evaluate(answerer, args.data, args.out, settings, train_metrics=args.train_metrics, **shared)}
    return {
        args.out / one.task.label: evaluate_task(answerer, one, args.out / one.task.label, settings, **shared)
        for one in tasks
    }


def _tell(out: Path, metrics: Mapping[str, Any]) -> int:
    """Print one run's figures; 1 when not one visual could be shown."""
    print("\n".join(lines_of(out, metrics)))
    if every_visual_failed(metrics):
        print(f"error: not one visual could be shown; see {out / 'quarantine.jsonl'}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
