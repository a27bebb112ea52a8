"""What a training would do, without training: parameters, tokens, steps, memory, and the first sample.

python -m medvlm.train.plan configs/quickstart.yaml
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from transformers import PretrainedConfig

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.loader import sample_of
from medvlm.data_recipes.pack_plan import Position
from medvlm.data_recipes.packing import Length
from medvlm.data_recipes.typed_yaml import BadConfig
from medvlm.model.loading import Model, Processor, empty_model
from medvlm.model.processing import Rendered
from medvlm.train.assemble import first_config, first_processor, parameters, set_trainable
from medvlm.train.config import Curriculum, EngineConfig, Stage, load_curriculum
from medvlm.train.data import StageData, prepare_data
from medvlm.train.stage import lengths_folder, renderer_of
from medvlm.train.stage_processor import stage_processors

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """What one stage will do.

    Attributes:
        trained: component (or "lora") -> parameters that get a gradient.
        samples: usable ones of each source, of those that a round draws.
        tokens: over the whole stage and all processes; ``supervised`` of them carry loss.
        kept: share of the visual tokens that the decoder sees; 1 without reduction.
        packs: of one round of the mixture; ``waste`` is the share of the token budget that they leave empty.
        memory_gib: of one process, estimated.
    """

    stage: Stage
    data: StageData
    trained: dict[str, int]
    samples: dict[str, int]
    steps: int
    tokens: int
    supervised: int
    patches: int
    kept: float
    packs: int
    waste: float
    memory_gib: dict[str, float]


def plan_stage(
    curriculum: Curriculum, stage: Stage, config: PretrainedConfig, processor: Processor, world_size: int
) -> StagePlan:
    """Measure the data of ``stage`` and count what it would take."""
    model = empty_model(config)
    trained = set_trainable(model, stage)
    seed = curriculum.seed * 1000 + curriculum.stages.index(stage)
    data = prepare_data(
        stage, curriculum.data, renderer_of(curriculum, processor), seed=seed,
        # A plan makes no run folder; in one that is there it finds what was measured, and adds to it.
        lengths_folder=lengths_folder(curriculum) if Path(curriculum.output_dir).is_dir() else None,
    )  # fmt: skip
    packs = list(data.plan.round(0))
    lengths = [list(data.plan.lengths.of(pack).values()) for pack in packs]
    drawn = np.unique([index for pack in packs for index in pack])
    ends = np.cumsum([len(source) for source in data.rows.sources])
    counts = np.diff(np.searchsorted(drawn, ends), prepend=0)
    samples = {source.manifest: int(n) for source, n in zip(stage.mixture, counts, strict=True)}
    steps = data.steps(stage, world_size)
    share = steps * world_size * stage.packs_per_step / len(packs)
    round_tokens = sum(length.tokens for pack in lengths for length in pack)
    return StagePlan(
        stage=stage,
        data=data,
        trained=trained,
        samples=samples,
        steps=steps,
        tokens=round(share * round_tokens),
        supervised=round(share * sum(length.supervised for pack in lengths for length in pack)),
        patches=round(share * sum(length.patches for pack in lengths for length in pack)),
        kept=visual_tokens_kept(length for pack in lengths for length in pack),
        packs=len(packs),
        waste=1 - round_tokens / (len(packs) * curriculum.data.tokens_per_pack),
        memory_gib=estimate_memory(model, curriculum, world_size),
    )


def visual_tokens_kept(lengths: Iterable[Length]) -> float:
    """Share of the visual tokens of ``lengths`` that the decoder sees; 1 when there are none."""
    counts = [(length.visual_tokens, length.visual_tokens_made) for length in lengths]
    made = sum(number for _, number in counts)
    return sum(number for number, _ in counts) / made if made else 1.0


def estimate_memory(model: Model, curriculum: Curriculum, world_size: int) -> dict[str, float]:
    """GiB of one process: weights, gradients, optimizer, activations.

    ZeRO divides the optimizer (stage 1), gradients (2) and weights (3) by the number of processes (Rajbhandari et al.
    2020, arXiv:1910.02054, section 3). Activations: per token and layer 34 hidden-sized numbers of 2 bytes (Korthikanti
    et al. 2022, arXiv:2205.05198, equation 1 without the attention square), doubled in fp32, for a full pack; with
    activation checkpointing one layer and the borders of all. An estimate: allocators add to it.
    """
    engine: EngineConfig = curriculum.engine
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    half = engine.precision == "bf16" and engine.kind == "deepspeed"
    zero = engine.zero_stage if engine.kind == "deepspeed" else 0
    weights = total * (2 if half else 4) / (world_size if zero == 3 else 1)
    gradients = trained * (2 if half else 4) / (world_size if zero >= 2 else 1)
    optimizer = trained * (12 if half else 8) / (world_size if zero >= 1 else 1)
    sizes = model.sizes()
    width = 2 if engine.precision == "bf16" else 4

    def activations(count: int, hidden: int, layers: int) -> float:
        per_layer = 34 * hidden * width / 2
        if engine.activation_checkpointing:
            return count * (per_layer + layers * hidden * width)
        return count * layers * per_layer

    held = activations(curriculum.data.tokens_per_pack, *sizes["text"])
    held += activations(curriculum.data.patches_per_pack, *sizes["vision"])
    parts = {"weights": weights, "gradients": gradients, "optimizer": optimizer, "activations": held}
    parts["total"] = sum(parts.values())
    return {name: size / GIB for name, size in parts.items()}


def as_the_model_sees_it(rendered: Rendered, processor: Processor) -> str:
    """The tokens as text, with rich markup: what carries loss in green, a visual as one bracket with its grid."""
    pieces: list[str] = []
    visuals = iter(rendered.visuals)
    tokens, supervised = rendered.tokens.tolist(), rendered.supervised.tolist()
    start = rest = 0
    while start < len(tokens):
        visual = tokens[start] == processor.visual_token_id
        if visual and rest:
            # A volume shown as slices has text between them.
            start, rest = start + 1, rest - 1
            continue
        if visual:
            shown = next(visuals)
            stop, rest = start + 1, shown.tokens - 1
            spacing = ", ".join("unknown" if math.isnan(s) else f"{s:.2f}" for s in shown.spacing)
            grid = " x ".join(str(g) for g in shown.grid)
            pieces.append(
                f"[cyan]⟦{('image', 'volume', 'video')[shown.axis_kind]}: {grid} patches, spacing {spacing}, "
                f"{shown.tokens} tokens{'' if shown.kept.all() else f' of {len(shown.kept)}'}⟧[/cyan]"
            )
        else:
            stop = start
            while (
                stop < len(tokens)
                and tokens[stop] != processor.visual_token_id
                and supervised[stop] == supervised[start]
            ):
                stop += 1
            text = escape(str(processor.tokenizer.decode(tokens[start:stop])))
            pieces.append(f"[green]{text}[/green]" if supervised[start] else text)
        start = stop
    return "".join(pieces)


def show(curriculum: Curriculum, world_size: int, console: Console) -> list[StagePlan]:
    """Plan every stage and print it."""
    processor = first_processor(curriculum)
    processors = stage_processors(processor, curriculum.stages)
    config = first_config(curriculum, processor)
    sizes = parameters(empty_model(config))
    table = Table("component", "parameters", title=f"{curriculum.name}: model")
    for name, count in sizes.items():
        table.add_row(name, f"{count:,}")
    table.add_row("total", f"{sum(sizes.values()):,}")
    console.print(table)
    plans = []
    with console.status("measuring samples"):
        for stage in curriculum.stages:
            plans.append(plan_stage(curriculum, stage, config, processors[stage.name], world_size))
    for plan in plans:
        show_stage(plan, curriculum, world_size, console)
    for plan in plans:
        for bad in plan.data.quarantine.refused[:3]:
            console.print(f"[red]quarantined[/red] ({plan.stage.name}) {escape(str(bad))}")
    first = plans[0].data
    _, members = next(first.plan.packs(Position()))
    sample = sample_of(first.rows, min(members))
    renderer = renderer_of(curriculum, processors[plans[0].stage.name])
    console.print(f"\nfirst sample of {plans[0].stage.name!r}, {sample.sample_id}; what carries loss is green:")
    for side in renderer.sides(sample):
        console.print(as_the_model_sees_it(side, processor))
    return plans


def show_stage(plan: StagePlan, curriculum: Curriculum, world_size: int, console: Console) -> None:
    """A block of a few lines on one stage."""
    stage, engine, data = plan.stage, curriculum.engine, curriculum.data
    zero = f" ZeRO {engine.zero_stage}" if engine.kind == "deepspeed" else ""
    per_step = world_size * stage.packs_per_step
    memory = ", ".join(f"{name} {size:.2f}" for name, size in plan.memory_gib.items() if name != "total")
    sources = ", ".join(f"{name} {count:,}" for name, count in plan.samples.items())
    console.print(f"\n[bold]{stage.name}[/bold] ({stage.objective}): {plan.steps:,} steps", highlight=False)
    for label, text in (
        ("trains", ", ".join(f"{name} {count:,}" for name, count in plan.trained.items()) + "; the rest is frozen"),
        ("samples", f"{sources}; {len(plan.data.quarantine):,} quarantined"),
        ("packs", f"{plan.packs:,} a round of at most {data.tokens_per_pack:,} tokens, {plan.waste:.1%} empty"),
        ("step", f"{per_step} packs ({world_size} processes x {stage.packs_per_step}), {engine.kind}{zero}"),
        ("tokens", f"{plan.tokens:,}, {plan.supervised:,} of them with loss, and {plan.patches:,} patches"),
        ("visuals", f"{plan.kept:.0%} of the tokens of images, volumes and clips are kept"),
        ("memory", f"about {plan.memory_gib['total']:.2f} GiB a process: {memory}"),
    ):
        console.print(f"  {label:<8} {text}", highlight=False)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="medvlm plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="YAML of one curriculum")
    parser.add_argument("overrides", nargs="*", help="dotted overrides: stages.align.steps=10 engine.zero_stage=2")
    parser.add_argument("--processes", type=int, default=1, help="how many the training will have (default 1)")
    options = parser.parse_intermixed_args(arguments)
    try:
        show(load_curriculum(options.config, options.overrides), options.processes, Console())
    except (BadConfig, BadSample, ValueError, OSError, ModuleNotFoundError) as error:
        print(f"medvlm plan: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
