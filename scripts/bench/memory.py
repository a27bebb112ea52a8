"""Peak memory of the loss over a large vocabulary, and of a step over a volume of 1, 2 and 4 times the tokens.

    python -m medvlm.scripts.bench.memory [--json] [--device auto] [--write docs/benchmarks.md]

Each number is of a process of its own: the peak while one forward and backward pass runs, above what was held before
it (on a CPU the resident set, as Linux counts it; on a GPU what torch allocated).

- Loss: log-probabilities of N tokens from hidden states, by the logits of all of them, by ours for any loss
  (``chunked_loss.log_probabilities``), by ours for the supervised sum (``weighted_sum``), and on a GPU by Liger's
  kernel. The bound is what must be held when logits are made in parts: the gradient of the hidden states, that of
  the layer and of one part of it where it trains, and two times the logits of one part. Goal: ours <= 1.05 of the
  bound, and on a GPU <= 1.05 of Liger's.
- Volume: a whole step (encoder, projector and decoder train) over one volume and its report, with and without
  activation checkpointing. Goal: memory grows in line with the tokens, so that from 2x to 4x it grows at most 2.1 times
  as much as from 1x to 2x.

Exit code: 0 when the goals were met, 1 when not.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medvlm.data_recipes.progress import tracking
from medvlm.model import chunked_loss
from medvlm.model.batch import IGNORED, VOLUME, PackedBatch
from medvlm.model.language_head import LanguageHead
from medvlm.model.loading import build_model
from medvlm.model.log_probabilities import summed_log_probability
from medvlm.scripts.bench.hardware import hardware, held
from medvlm.scripts.marked_page import write_block
from medvlm.train.checkpointing import checkpoint_activations

MIB = 2**20
LOSS_SIZES = {"cpu": (4096, 512, 32000), "cuda": (16384, 2048, 151936)}
"""Tokens, hidden size and vocabulary."""
VOLUME_DEPTHS = (8, 16, 32)
"""Slabs of 16 x 16 patches: 1x, 2x and 4x."""
WITHIN, GROWTH = 1.05, 2.1


def peak_during(work: Callable[[], None], device: torch.device) -> int:
    """Bytes above what is held before ``work``."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the high-water mark begins anew
    before = held("VmRSS")
    work()
    return held("VmHWM") - before


def loss_case(way: str, trained: bool, device: torch.device) -> tuple[int, int]:
    """(peak, bound) in bytes."""
    count, width, vocabulary = LOSS_SIZES[device.type]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    layer = nn.Linear(width, vocabulary, bias=False, device=device, dtype=dtype).requires_grad_(trained)
    head = LanguageHead(logits=layer, module=layer, linear=True)
    hidden = torch.randn(count, width, device=device, dtype=dtype, requires_grad=True)
    targets = torch.randint(0, vocabulary, (count,), device=device)
    weights = torch.ones(count, device=device)

    def total(rows: slice) -> Tensor:
        if way == "all logits":
            return -F.cross_entropy(layer(hidden[rows]).float(), targets[rows], reduction="sum")
        if way == "ours, any loss":
            return chunked_loss.log_probabilities(head, hidden[rows], targets[rows])[0].sum()
        if way == "ours, sum":
            return chunked_loss.weighted_sum(head, hidden[rows], targets[rows], weights[rows])
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        return -LigerFusedLinearCrossEntropyLoss(reduction="sum")(layer.weight, hidden[rows], targets[rows])

    total(slice(8)).backward()  # what libraries allocate once
    hidden.grad = layer.weight.grad = None
    peak = peak_during(lambda: total(slice(None)).backward(), device)
    parts = chunked_loss._parts(head, hidden)
    item = hidden.element_size()
    logits = -(-count // parts) * vocabulary * (4 + item)
    of_layer = 2 * vocabulary * width * max(item, 4) if trained else 0
    return peak, logits + count * width * item * 2 + of_layer


def volume_case(depth: int, again: bool, device: torch.device) -> int:
    """Bytes of one pass over a volume of ``depth`` slabs."""
    torch.manual_seed(0)
    side, merge = 16, 2
    vision = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
    text = {
        "model_type": "qwen3", "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 768,
    }  # fmt: skip
    model = build_model(vision, {"hidden_size": 512, "merge": [1, merge, merge]}, {"config": text}, 4096, 1)
    model.to(device).train()  # type: ignore[arg-type]
    checkpoint_activations(model, again)

    def step(slabs: int) -> None:
        patches, visual = slabs * side * side, slabs * (side // merge) ** 2
        tokens = torch.cat([torch.full((visual,), 1), torch.randint(2, 4096, (visual // 4,))])
        targets = torch.full_like(tokens, IGNORED)
        targets[visual - 1 : -1] = tokens[visual:]
        pack = PackedBatch(
            tokens=tokens, targets=targets, positions=torch.arange(len(tokens)),
            cu_seqlens=torch.tensor([0, len(tokens)], dtype=torch.int32),
            patches=torch.randn(patches, model.config.vision_config.patch_dim),
            grids=torch.tensor([[slabs, side, side]]), spacing=torch.full((1, 3), 0.8),
            axis_kinds=torch.tensor([VOLUME]), kept=torch.ones(visual, dtype=torch.bool),
            visual_tokens=torch.tensor([visual]), placements=torch.zeros(1, dtype=torch.int64), sample_ids=("v",),
        ).to(device)  # fmt: skip
        (-summed_log_probability(model, pack)).backward()

    step(1)  # gradients exist
    return peak_during(lambda: step(depth), device)


def in_own_process(case: dict[str, Any], device: torch.device) -> list[int]:
    """Run ``case`` in a fresh interpreter."""
    # What is freed must go back to the system at once, or the resident set tells of the allocator.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "medvlm.scripts.bench.memory", "--device", device.type, "--case", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{case} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def run_case(case: dict[str, Any], device: torch.device) -> list[int]:
    """What a process of its own prints."""
    if "way" in case:
        return list(loss_case(case["way"], case["trained"], device))
    return [volume_case(case["depth"], case["again"], device)]


def judged(report: dict[str, Any]) -> bool:
    """See the module."""
    loss, volume = report["figures"]["loss"], report["figures"]["volume"]
    for rows in loss.values():
        for way in ("ours, any loss", "ours, sum"):
            limits = [rows["bound"]] if way == "ours, sum" or rows["frozen"] else []
            limits += [rows["Liger"]] if "Liger" in rows else []
            if any(rows[way] > WITHIN * limit for limit in limits):
                return False
    return all((row["4x"] - row["2x"]) <= GROWTH * (row["2x"] - row["1x"]) for row in volume.values())


def as_text(report: dict[str, Any]) -> str:
    """Markdown tables of the report."""
    count, width, vocabulary = report["loss_size"]
    loss, volume = report["figures"]["loss"], report["figures"]["volume"]
    ways = [name for name in next(iter(loss.values())) if name != "frozen"]
    lines = [
        f"{report['date']}, {report['hardware']}; loss over {count} tokens, hidden {width}, vocabulary {vocabulary}",
        "", f"| output layer | {' | '.join(f'{way}, MiB' for way in ways)} |", "|---" * (len(ways) + 1) + "|",
    ]  # fmt: skip
    for name, row in loss.items():
        lines.append(f"| {name} | {' | '.join(f'{row[way] / MIB:.0f}' for way in ways)} |")
    lines += [
        "",
        "| step over a volume | 1x, MiB | 2x, MiB | 4x, MiB | growth 2x to 4x over 1x to 2x |",
        "|---" * 5 + "|",
    ]
    for name, row in volume.items():
        one, two, four = (row[key] for key in ("1x", "2x", "4x"))
        lines.append(
            f"| {name} | {one / MIB:.0f} | {two / MIB:.0f} | {four / MIB:.0f} | {(four - two) / (two - one):.2f} |"
        )
    lines += ["", f"Goals (within {WITHIN} of the bound, growth at most {GROWTH}): "]
    lines[-1] += "met." if report["goal_met"] else "not met."
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables between the memory markers of PAGE")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    on_gpu = options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if on_gpu else "cpu")
    if options.case is not None:
        print(json.dumps(run_case(json.loads(options.case), device)))
        return 0
    ways = ["all logits", "ours, any loss", "ours, sum", *(["Liger"] if on_gpu else [])]
    loss: dict[str, dict[str, Any]] = {}
    volume: dict[str, dict[str, int]] = {}
    with tracking("peak memory", 2 * len(ways) + 2 * len(VOLUME_DEPTHS)) as track:
        for name, trained in (("frozen", False), ("trained", True)):
            loss[name] = {"frozen": not trained}
            for way in ways:
                loss[name][way], loss[name]["bound"] = in_own_process({"way": way, "trained": trained}, device)
                track.advance()
        for name, again in (("kept", False), ("computed again", True)):
            volume[f"activations {name}"] = row = {}
            for times, depth in zip(("1x", "2x", "4x"), VOLUME_DEPTHS, strict=True):
                (row[times],) = in_own_process({"depth": depth, "again": again}, device)
                track.advance()
    report: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(device),
        "loss_size": LOSS_SIZES[device.type],
        "figures": {"loss": loss, "volume": volume},
        "goal": {"of_bound": WITHIN, "growth": GROWTH},
    }
    report["goal_met"] = judged(report)
    print(as_text(report))
    if options.write is not None:
        write_block(options.write, "<!-- memory:begin -->", "<!-- memory:end -->", as_text(report))
    if options.json:
        print(json.dumps(report))
    return 0 if report["goal_met"] else 1


if __name__ == "__main__":
    sys.exit(main())
