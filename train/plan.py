"""What a training would do, without training: parameters, tokens, steps, memory, hours, and the first sample.

    python -m medvlm.train.plan configs/quickstart.yaml
    python -m medvlm.train.plan my.yaml --processes 8 --gpu h100-80gb --mfu 0.4 --price 2.5
    python -m medvlm.train.plan my.yaml --json > plan.json

Exit codes: 0 planned, warnings or not; 2 refused: the training would fail, teach the wrong thing, or not fit the GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.loader import sample_of
from medvlm.data_recipes.pack_plan import Position
from medvlm.data_recipes.typed_yaml import BadConfig
from medvlm.model.loading import Processor, empty_model
from medvlm.train.assemble import first_config, first_processor, parameters
from medvlm.train.config import Curriculum, load_curriculum
from medvlm.train.devices import ACCELERATORS, named
from medvlm.train.plan_checks import Finding, check_evaluation, check_freezing
from medvlm.train.plan_stage import Hardware, StagePlan, plan_stage
from medvlm.train.plan_view import as_the_model_sees_it
from medvlm.train.stage import renderer_of
from medvlm.train.stage_processor import stage_processors
from medvlm.train.trackers import check_trackers


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole training."""

    curriculum: Curriculum
    hardware: Hardware
    sizes: dict[str, int]
    stages: list[StagePlan]
    processors: dict[str, Processor]
    findings: list[Finding]

    @property
    def refused(self) -> bool:
        return any(finding.level == "refusal" for finding in self.findings)


def make_plan(curriculum: Curriculum, hardware: Hardware, console: Console) -> Plan:
    """Plan every stage."""
    # What the configuration alone tells comes first: samples take longer to measure.
    findings = check_freezing(curriculum) + check_evaluation(curriculum)
    check_trackers(curriculum.tracking)
    processor = first_processor(curriculum)
    processors = stage_processors(processor, curriculum.stages)
    config = first_config(curriculum, processor)
    stages = []
    with console.status("measuring samples") if console.is_terminal else contextlib.nullcontext():
        for stage in curriculum.stages:
            stages.append(plan_stage(curriculum, stage, config, processors[stage.name], hardware))
    findings += [finding for plan in stages for finding in plan.findings]
    return Plan(
        curriculum=curriculum, hardware=hardware, sizes=parameters(empty_model(config)), stages=stages,
        processors=processors, findings=findings,
    )  # fmt: skip


def show(plan: Plan, console: Console) -> None:
    """Print ``plan``."""
    table = Table("component", "parameters", title=f"{plan.curriculum.name}: model")
    for name, count in plan.sizes.items():
        table.add_row(name, f"{count:,}")
    table.add_row("total", f"{sum(plan.sizes.values()):,}")
    console.print(table)
    for stage in plan.stages:
        show_stage(stage, plan.curriculum, plan.hardware, console)
    show_total(plan, console)
    for stage in plan.stages:
        for bad in stage.data.quarantine.refused[:3]:
            console.print(f"[red]quarantined[/red] ({stage.stage.name}) {escape(str(bad))}")
    for finding in plan.findings:
        colour = "red" if finding.level == "refusal" else "yellow"
        console.print(f"[{colour}]{finding.level}[/{colour}] {escape(str(finding))}", highlight=False)
    first = plan.stages[0]
    _, members = next(first.data.plan.packs(Position()))
    sample = sample_of(first.data.rows, min(members))
    processor = plan.processors[first.stage.name]
    console.print(f"\nfirst sample of {first.stage.name!r}, {sample.sample_id}; what carries loss is green:")
    try:
        sides = renderer_of(plan.curriculum, processor, first.stage).sides(sample)
    except BadSample as bad:  # gone since it was measured: a finding above says how many are
        console.print(f"[red]it cannot be read[/red]: {escape(str(bad))}", highlight=False)
        return
    for side in sides:
        console.print(as_the_model_sees_it(side, processor))


def show_stage(plan: StagePlan, curriculum: Curriculum, hardware: Hardware, console: Console) -> None:
    """A block of a few lines on one stage."""
    stage, engine, data, memory = plan.stage, curriculum.engine, curriculum.data, plan.memory
    zero = f" ZeRO {engine.zero_stage}" if engine.kind == "deepspeed" else ""
    per_step = hardware.processes * stage.packs_per_step
    parts = ", ".join(f"{name} {size:.3g}" for name, size in memory.parts.items())
    host = f", and {memory.host:.3g} GiB of host memory" if memory.host else ""
    sources = ", ".join(f"{name} {count:,}" for name, count in plan.samples.items())
    looked, missing = plan.files.looked_for, len(plan.files.missing)
    first = "such packs run first, before step 1"
    answers = (
        f"on {plan.masks.supervised:.1%} of the tokens of {plan.masks.samples} samples that were rendered, "
        f"{'with' if not plan.masks.endless else 'WITHOUT'} the end of the turn"
    )
    if stage.reinforcement is not None:  # a pack is only a beginning: what is learnt from is written in training
        first = "no pack is tried before step 1"
        answers = (
            f"on {stage.reinforcement.group_size} answers to each prompt, of at most "
            f"{stage.reinforcement.max_new_tokens:,} tokens"
        )
    lines = [
        ("trains", ", ".join(f"{name} {count:,}" for name, count in plan.trained.items()) + "; the rest is frozen"),
        ("samples", f"{sources}; {len(plan.data.quarantine):,} quarantined"),
        ("files", f"{looked:,} of the visuals looked for, {missing:,} missing" if looked else "no visual to look for"),
        ("packs", f"{plan.packs:,} a round of at most {data.tokens_per_pack:,} tokens, {plan.waste:.1%} empty"),
        ("largest", f"{plan.largest[0]:,} tokens; {plan.largest[1]:,} patches: {first}"),
        ("step", f"{per_step} packs ({hardware.processes} processes x {stage.packs_per_step}), {engine.kind}{zero}"),
        ("tokens", f"{plan.tokens:,}, {plan.supervised:,} of them with loss, and {plan.patches:,} patches"),
        ("visuals", f"{plan.kept:.0%} of the tokens of images, volumes and clips are kept"),
        ("loss", answers),
        ("memory", f"about {memory.total:.3g} GiB a process: {parts}{host}"),
    ]
    if hardware.gpu is not None:
        fits = memory.fits(hardware.gpu)
        has = hardware.gpu.memory_bytes / 2**30
        verdict = f"{memory.needed():.1f} of {has:.1f} GiB: {'fits' if fits else 'does not fit'}"
        lines.append(("gpu", f"{hardware.gpu.name}, {verdict}"))
        lines += [("", f"would fit with {change}") for change in plan.would_fit]
    if plan.operations is not None:
        spent = f"{plan.operations:.3g} floating-point operations"
        if plan.time is not None:
            spent += f": {hours(plan.time.hours)} at {plan.time.assumed_mfu:.0%} MFU"
        lines.append(("compute", spent))
    console.print(f"\n[bold]{stage.name}[/bold] ({stage.objective}): {plan.steps:,} steps", highlight=False)
    for label, text in lines:
        console.print(f"  {label:<8} {escape(text)}", highlight=False)


def show_total(plan: Plan, console: Console) -> None:
    """Hours and cost of all stages together, when a GPU was named."""
    times = [stage.time for stage in plan.stages if stage.time is not None]
    gpu = plan.hardware.gpu
    if gpu is None or not times:
        return
    clock, gpu_hours = sum(time.hours for time in times), sum(time.gpu_hours for time in times)
    price = plan.hardware.price
    cost = "" if price is None else f", {gpu_hours * price:,.2f} at {price:g} an hour"
    console.print(
        f"\n[bold]all stages[/bold]: {hours(clock)} on {plan.hardware.processes} x {gpu.name}, {gpu_hours:.2f} "
        f"GPU-hours{cost}; the MFU of {plan.hardware.mfu:.0%} is assumed (--mfu), saving and evaluation come on top",
        highlight=False,
    )


def hours(number: float) -> str:
    """ "3.2 hours", "12 minutes", "40 seconds"."""
    if number >= 1:
        return f"{number:.1f} hours"
    return f"{number * 60:.0f} minutes" if number * 60 >= 1 else f"{number * 3600:.0f} seconds"


def as_json(plan: Plan) -> dict[str, Any]:
    """``plan`` for machines."""
    hardware = plan.hardware
    times = [stage.time for stage in plan.stages if stage.time is not None]
    gpu_hours = sum(time.gpu_hours for time in times) if times else None
    return {
        "name": plan.curriculum.name,
        "parameters": plan.sizes,
        "processes": hardware.processes,
        "gpu": hardware.gpu.name if hardware.gpu is not None else None,
        "assumed_mfu": hardware.mfu,
        "stages": [_stage_json(stage, hardware) for stage in plan.stages],
        "hours": sum(time.hours for time in times) if times else None,
        "gpu_hours": gpu_hours,
        "cost": None if gpu_hours is None or hardware.price is None else gpu_hours * hardware.price,
        "findings": [asdict(finding) for finding in plan.findings],
        "refused": plan.refused,
    }


def _stage_json(plan: StagePlan, hardware: Hardware) -> dict[str, Any]:
    return {
        "name": plan.stage.name,
        "objective": plan.stage.objective,
        "trained": plan.trained,
        "steps": plan.steps,
        "samples": plan.samples,
        "quarantined": len(plan.data.quarantine),
        "files_looked_for": plan.files.looked_for,
        "files_missing": len(plan.files.missing),
        "packs": plan.packs,
        "padding": plan.waste,
        "largest_pack": {"tokens": plan.largest[0], "patches": plan.largest[1]},
        "tokens": plan.tokens,
        "supervised_tokens": plan.supervised,
        "patches": plan.patches,
        "visual_tokens_kept": plan.kept,
        "supervised_share": plan.masks.supervised,
        "memory_gib": {**plan.memory.parts, "total": plan.memory.total, "host": plan.memory.host},
        "fits": None if hardware.gpu is None else plan.memory.fits(hardware.gpu),
        "would_fit": list(plan.would_fit),
        "operations": plan.operations,
        "hours": None if plan.time is None else plan.time.hours,
        "gpu_hours": None if plan.time is None else plan.time.gpu_hours,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="medvlm plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="YAML of one curriculum")
    parser.add_argument("overrides", nargs="*", help="dotted overrides: stages.align.steps=10 engine.zero_stage=2")
    parser.add_argument("--processes", type=int, default=1, help="how many the training will have (default 1)")
    names = ", ".join(card.name for card in ACCELERATORS)
    parser.add_argument("--gpu", help=f"say whether it fits such a GPU, and how long it takes: {names}")
    parser.add_argument("--mfu", type=float, default=0.4, help="share of its peak that is reached (default 0.4)")
    parser.add_argument("--price", type=float, help="of one GPU for one hour, in any currency")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_intermixed_args(arguments)
    try:
        if options.processes < 1 or not 0 < options.mfu <= 1:
            raise ValueError("--processes is a number from 1 on, and --mfu a share between 0 and 1")
        hardware = Hardware(
            processes=options.processes, gpu=None if options.gpu is None else named(options.gpu), mfu=options.mfu,
            price=options.price,
        )  # fmt: skip
        console = Console()
        plan = make_plan(
            load_curriculum(options.config, options.overrides),
            hardware,
            Console(stderr=True) if options.json else console,
        )
        if options.json:
            print(json.dumps(as_json(plan), indent=1, allow_nan=False))
        else:
            show(plan, console)
    except (BadConfig, BadSample, ValueError, OSError, ModuleNotFoundError) as error:
        print(f"medvlm plan: {error}", file=sys.stderr)
        return 2
    for finding in plan.findings if plan.refused else []:
        if finding.level == "refusal":
            print(f"medvlm plan: {finding}", file=sys.stderr)
    return 2 if plan.refused else 0


if __name__ == "__main__":
    sys.exit(main())
