"""How near a training step comes to its matrix products alone.

    python -m medvlm.scripts.bench.step [--json] [--device auto] [--repeats 5] [--write docs/benchmarks.md]

A step is what the loop of a training does with a pack that has been read: copy, forward and backward pass, clipping,
AdamW. While one step runs, every matrix product and attention of it (torch's operators, forward and backward) is
taken down with its shapes, strides and types. Those are then run bare, one after the other: the floor. Step and floor
take turns; medians count. The goal is floor / step >= 0.85 on a CPU, in each case:

- full: encoder, projector and decoder train;
- lora: adapters on the decoder, the encoder frozen, the projector trained;
- align: the projector alone trains;
- align, features cached: the same, with what the frozen encoder made in the round before (data.feature_cache).

On a GPU the default model is of 1.7 B parameters in bf16 with 8192 tokens, and MFU is told as a share of the fastest
square product that is measured in the same run; the goal there is MFU >= 0.55 with LoRA, and >= 0.50 in full.

Exit code: 0 when the goal was met, 1 when not.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from medvlm.data_recipes.progress import tracking
from medvlm.model.batch import IGNORED, IMAGE, VOLUME, PackedBatch
from medvlm.model.flops import model_flops
from medvlm.model.loading import Model, build_model
from medvlm.scripts.bench.hardware import hardware
from medvlm.scripts.bench.step_floor import Recorder
from medvlm.scripts.marked_page import write_block
from medvlm.train.assemble import component_of, set_trainable
from medvlm.train.config import EngineConfig, LearningRates, Lora, Source, Stage
from medvlm.train.devices import measured_peak
from medvlm.train.engine import Engine, make_engine
from medvlm.train.objectives.supervised import Supervised
from medvlm.train.optim import parameter_groups
from medvlm.train.throughput import counted

CPU_GOAL = 0.85
GPU_GOALS = {"full": 0.50, "lora": 0.55}
RATE = 1e-5
CASES: dict[str, dict[str, Any]] = {
    "full": {"learning_rate": LearningRates(vision=RATE, projector=RATE, text=RATE)},
    "lora": {"learning_rate": LearningRates(projector=RATE), "lora": Lora(rank=16)},
    "align": {"learning_rate": LearningRates(projector=RATE)},
    "align, features cached": {"learning_rate": LearningRates(projector=RATE)},
}


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the model and the pack are."""

    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    intermediate: int
    vocabulary: int
    vision_hidden: int
    vision_layers: int
    tokens: int


SIZES = {
    "cpu": Size(
        hidden=768, layers=4, heads=12, key_value_heads=4, intermediate=2304, vocabulary=8192, vision_hidden=512,
        vision_layers=4, tokens=2048,
    ),
    "gpu-1.7b": Size(
        hidden=2048, layers=28, heads=16, key_value_heads=8, intermediate=6144, vocabulary=151936,
        vision_hidden=1152, vision_layers=27, tokens=8192,
    ),
    "gpu-7b": Size(
        hidden=3584, layers=28, heads=28, key_value_heads=4, intermediate=18944, vocabulary=152064,
        vision_hidden=1152, vision_layers=27, tokens=8192,
    ),
}  # fmt: skip
VISUAL = 1
"""The placeholder token of the pack."""


def a_model(size: Size) -> Model:
    """With random weights."""
    torch.manual_seed(0)
    vision = {
        "hidden_size": size.vision_hidden, "num_hidden_layers": size.vision_layers,
        "num_attention_heads": size.vision_hidden // 64, "intermediate_size": 4 * size.vision_hidden,
        "patch_size": (2, 16, 16),
    }  # fmt: skip
    text = {
        "model_type": "qwen3", "hidden_size": size.hidden, "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads, "num_key_value_heads": size.key_value_heads,
        "head_dim": size.hidden // size.heads, "intermediate_size": size.intermediate, "tie_word_embeddings": True,
    }  # fmt: skip
    return build_model(vision, {"hidden_size": size.hidden}, {"config": text}, size.vocabulary, VISUAL)


def a_pack(size: Size, model: Model) -> PackedBatch:
    """Questions about images, and one about a volume: half of the tokens are visual, and a third of the rest is
    supervised."""
    generator = torch.Generator().manual_seed(0)
    merge: list[int] = model.merge  # type: ignore[union-attr, assignment]
    shared = merge[0] * merge[1] * merge[2]
    tokens, targets, ends, kinds, counts = [], [], [0], [], []
    grids: list[tuple[int, int, int]] = []
    length = size.tokens // 8
    while ends[-1] < size.tokens:
        is_volume = not grids
        share = 2 if is_volume else 1  # the volume's sample is twice as long
        side = merge[1] * max(1, round((length // 2 / (4 if is_volume else 1) * share) ** 0.5))
        grid = (4 * merge[0] if is_volume else merge[0], side, side)
        visual = grid[0] * grid[1] * grid[2] // shared
        total = min(share * length, size.tokens - ends[-1])
        visual_row = torch.full((min(visual, total - 8),), VISUAL)
        if len(visual_row) < visual:  # the last sample has what is left: text only
            visual_row = visual_row[:0]
        else:
            grids.append(grid)
            kinds.append(VOLUME if is_volume else IMAGE)
            counts.append(visual)
        words = torch.randint(2, size.vocabulary, (total - len(visual_row),), generator=generator)
        row = torch.cat([visual_row, words])
        target = torch.full_like(row, IGNORED)
        answer = len(words) // 3
        target[-answer - 1 : -1] = row[-answer:]
        tokens.append(row)
        targets.append(target)
        ends.append(ends[-1] + total)
    patches = sum(z * y * x for z, y, x in grids)
    return PackedBatch(
        tokens=torch.cat(tokens),
        targets=torch.cat(targets),
        positions=torch.cat([torch.arange(len(row)) for row in tokens]),
        cu_seqlens=torch.tensor(ends, dtype=torch.int32),
        patches=torch.rand(patches, model.config.vision_config.patch_dim, generator=generator),
        grids=torch.tensor(grids),
        spacing=torch.full((len(grids), 3), 0.8),
        axis_kinds=torch.tensor(kinds),
        kept=torch.ones(sum(counts), dtype=torch.bool),
        visual_tokens=torch.tensor(counts),
        placements=torch.arange(len(grids)),
        sample_ids=tuple(f"s{number}" for number in range(len(tokens))),
    )


def step_of(engine: Engine, groups: list[dict[str, Any]], pack: PackedBatch) -> Callable[[], None]:
    """What ``train.loop`` does with one pack."""
    objective, rates = Supervised(), {group["name"]: RATE for group in groups}

    def step() -> None:
        loss = objective(engine.model, pack.to(engine.device))
        engine.backward(loss.total / pack.supervised, last=True)
        engine.step(rates)

    return step


@dataclass(frozen=True, kw_only=True)
class Row:
    """One case, in seconds (medians), and FLOPs of the model."""

    step_s: float
    floor_s: float
    products: int
    flops: float

    def figures(self, peak: float, tokens: int) -> dict[str, float]:
        """For people and for JSON."""
        return {
            "step_s": self.step_s, "floor_s": self.floor_s, "floor_of_step": self.floor_s / self.step_s,
            "products": self.products, "mfu": self.flops / self.step_s / peak, "tokens_per_s": tokens / self.step_s,
        }  # fmt: skip


def measure(name: str, size: Size, engine_config: EngineConfig, repeats: int, advance: Callable[[], None]) -> Row:
    """One case: step and floor in turn."""
    stage = Stage(name="bench", mixture=(Source(manifest="none"),), steps=1, **CASES[name])
    model = a_model(size)
    set_trainable(model, stage)
    rates = stage.peak_learning_rates()
    groups = parameter_groups(model.named_parameters(), lambda n: component_of(model, n), rates, 0)
    engine = make_engine(engine_config, model.train(), groups)
    pack = a_pack(size, model)
    trained, adapted = tuple(stage.learning_rate.of_components()), stage.lora.components if stage.lora else ()
    if "cached" in name:
        with torch.no_grad():
            features = engine.model(run=lambda inner: inner.encode_pack(pack.to(engine.device)))
        pack = replace(pack, features=features.cpu(), patches=pack.patches[:0])
    flops = counted(model_flops(model).of_pack(pack), trained, adapted, ()).model
    step = step_of(engine, groups, pack)
    step()
    with Recorder() as recorder:
        step()
    steps: list[float] = []
    floors: list[float] = []
    for _ in range(repeats):
        for times, work in ((steps, step), (floors, recorder.again)):
            gc.collect()
            wait(engine.device)
            began = time.perf_counter()
            work()
            wait(engine.device)
            times.append(time.perf_counter() - began)
        advance()
    engine.close()
    return Row(
        step_s=statistics.median(steps), floor_s=statistics.median(floors), products=len(recorder.calls), flops=flops
    )


def wait(device: torch.device) -> None:
    """For what the GPU still does."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def goal_met(report: dict[str, Any]) -> bool:
    """See the module."""
    figures = report["figures"]
    if report["device"] == "cpu":
        return all(row["floor_of_step"] >= CPU_GOAL for row in figures.values())
    return all(figures[name]["mfu"] >= goal for name, goal in GPU_GOALS.items() if name in figures)


def as_text(report: dict[str, Any]) -> str:
    """A Markdown table of the report."""
    size = report["size"]
    lines = [
        f"{report['date']}, {report['hardware']}; decoder of {size['layers']} layers of {size['hidden']}, encoder of "
        f"{size['vision_layers']} layers of {size['vision_hidden']}, {size['tokens']} tokens, {report['precision']}; "
        f"fastest square product {report['peak_tflops']:.3f} TFLOP/s",
        "",
        "| case | step s | floor s | floor / step | products | MFU | tokens/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in report["figures"].items():
        lines.append(
            f"| {name} | {row['step_s']:.3f} | {row['floor_s']:.3f} | {row['floor_of_step']:.3f} "
            f"| {row['products']} | {row['mfu']:.3f} | {row['tokens_per_s']:.0f} |"
        )
    goal = f"floor / step >= {CPU_GOAL}" if report["device"] == "cpu" else f"MFU {GPU_GOALS}"
    lines += ["", f"Goal {goal}: {'met' if report['goal_met'] else 'not met'}."]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="of every case (5)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--size", choices=tuple(SIZES), help="default: cpu, or gpu-1.7b on a GPU")
    parser.add_argument("--tokens", type=int, help="of the pack, instead of the size's own")
    parser.add_argument("--cases", nargs="+", choices=tuple(CASES), default=list(CASES))
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table between the step markers of PAGE")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    on_gpu = options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if on_gpu else "cpu")
    size = SIZES[options.size or ("gpu-1.7b" if on_gpu else "cpu")]
    if options.tokens is not None:
        size = replace(size, tokens=options.tokens)
    config = EngineConfig(device=device.type, precision="bf16" if on_gpu else "fp32")  # type: ignore[arg-type]
    peak = measured_peak(device, torch.bfloat16 if on_gpu else torch.float32, seconds=1.0)
    with tracking("steps", len(options.cases) * options.repeats) as track:
        rows = {name: measure(name, size, config, options.repeats, track.advance) for name in options.cases}
    report: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(device),
        "device": device.type,
        "precision": config.precision,
        "size": vars(size),
        "peak_tflops": peak / 1e12,
        "figures": {name: row.figures(peak, size.tokens) for name, row in rows.items()},
        "goal": CPU_GOAL if device.type == "cpu" else GPU_GOALS,
    }
    report["goal_met"] = goal_met(report)
    print(as_text(report))
    if options.write is not None:
        write_block(options.write, "<!-- step:begin -->", "<!-- step:end -->", as_text(report))
    if options.json:
        print(json.dumps(report))
    return 0 if report["goal_met"] else 1


if __name__ == "__main__":
    sys.exit(main())
