"""Multimodal DPO: pairs a second and peak memory, ours against TRL's DPOTrainer.

    python -m medvlm.scripts.bench.dpo --json
    python -m medvlm.scripts.bench.dpo --write docs/benchmarks.md

Both train the same small Qwen2.5-VL from one checkpoint folder, with the same pairs about pictures in the same steps,
the same LoRA on the same layers from the same start, the reference by adapters off, AdamW, in fp32 (bf16 on a GPU).
Pictures are decoded and prepared while training, by both. Each training is a process of its own; contenders take turns.
The losses of all steps are compared: when they differ, one of the two does something else, and nothing is reported.

Memory is the peak of the process (VmHWM; on a GPU what torch allocated) over what it was after the imports, so it
holds weights, optimizer, activations and what preparing the data takes.

TRL is needed besides medvlm: see docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from medvlm.data_recipes.progress import tracking
from medvlm.scripts.bench.dpo_checkpoint import write_checkpoint, write_pairs
from medvlm.scripts.bench.dpo_contenders import CONTENDERS, PEERS, WARMUP, Task
from medvlm.scripts.bench.hardware import hardware
from medvlm.scripts.marked_page import write_block

GOALS = {"pairs_per_second": 1.7, "peak_mib": 0.6}
"""At least so many times the pairs a second, at most this share of the memory of TRL."""

SETTINGS = {"activations kept": False, "activations computed again": True}
TOLERANCE = 2e-3
"""Largest difference of a loss, relative: five steps in fp32 end within 1e-5, in bf16 within this."""

Runs = dict[str, dict[str, list[dict[str, Any]]]]
"""Setting -> contender -> what each of its processes reported."""


def measure(folder: Path, options: argparse.Namespace) -> Runs:
    """All contenders in turn, ``options.repeats`` times."""
    runs: Runs = {setting: {name: [] for name in CONTENDERS} for setting in SETTINGS}
    with tracking("trainings", options.repeats * len(SETTINGS) * len(CONTENDERS)) as track:
        for repeat in range(options.repeats):
            for setting, checkpointing in SETTINGS.items():
                names = list(CONTENDERS)
                for name in names[repeat % 2 :] + names[: repeat % 2]:
                    runs[setting][name].append(one_process(name, folder, options, checkpointing))
                    track.advance()
    return runs


def one_process(name: str, folder: Path, options: argparse.Namespace, checkpointing: bool) -> dict[str, Any]:
    """What a training in a fresh process reports.

    Raises:
        SystemExit: it failed; with the end of what it said.
    """
    command = [
        sys.executable, "-m", "medvlm.scripts.bench.dpo", "--contender", name, "--folder", str(folder), "--steps",
        str(options.steps), "--pairs", str(options.pairs), "--device", options.device,
    ]  # fmt: skip
    done = subprocess.run(
        command + ["--checkpointing"] * checkpointing, capture_output=True, text=True, check=False,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def largest_difference(runs: Runs) -> float:
    """Of the losses of all trainings from those of the first, relative."""
    losses = [one["losses"] for table in runs.values() for reports in table.values() for one in reports]
    steps = min(len(one) for one in losses)
    if steps == 0:
        raise SystemExit("a contender reported no losses")
    return max(abs(one[n] - losses[0][n]) / abs(losses[0][n]) for one in losses for n in range(steps))


def judged(runs: Runs) -> dict[str, Any]:
    """Medians of each contender, and ours against TRL's, for each setting."""
    found: dict[str, Any] = {}
    for setting, table in runs.items():
        medians = {
            name: {
                key: statistics.median(one[key] for one in reports)
                for key in ("pairs_per_second", "cpu_seconds_per_pair", "peak_mib")
            }
            | {"least": min(one["pairs_per_second"] for one in reports)}
            | {"most": max(one["pairs_per_second"] for one in reports)}
            for name, reports in table.items()
        }
        ratios = {key: medians["medvlm"][key] / medians["TRL"][key] for key in GOALS}
        met = ratios["pairs_per_second"] >= GOALS["pairs_per_second"] and ratios["peak_mib"] <= GOALS["peak_mib"]
        found[setting] = {"medians": medians, "ratios": ratios, "met": met}
    return found


def as_text(report: dict[str, Any]) -> str:
    """Markdown of the report."""
    lines = [
        f"{report['date']}, {report['hardware']}, TRL {report['trl']}; {report['pairs']} pairs a step, "
        f"{report['steps'] - WARMUP} timed steps, {report['repeats']} repeats; losses of all trainings agree to "
        f"{report['largest_difference']:.1e}",
        "",
        "| activations | contender | pairs/s | least to most | CPU s a pair | peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    for setting, found in report["figures"].items():
        for name, row in found["medians"].items():
            lines.append(
                f"| {setting.removeprefix('activations ')} | {name} | {row['pairs_per_second']:.2f} "
                f"| {row['least']:.2f} to {row['most']:.2f} | {row['cpu_seconds_per_pair']:.2f} "
                f"| {row['peak_mib']:.0f} |"
            )
    lines += [
        "",
        "| activations | pairs/s of TRL's (goal 1.7) | memory of TRL's (goal 0.6) | met |",
        "|---|---|---|---|",
    ]
    for setting, found in report["figures"].items():
        ratios = found["ratios"]
        lines.append(
            f"| {setting.removeprefix('activations ')} | {ratios['pairs_per_second']:.2f} | {ratios['peak_mib']:.2f} "
            f"| {'yes' if found['met'] else 'no'} |"
        )
    return "\n".join(lines)


def arguments_of(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="processes of every contender (3)")
    parser.add_argument("--steps", type=int, default=5, help=f"optimizer steps of each, {WARMUP} of them not timed (5)")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of a step (4)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--write", type=Path, help="put the table between the markers of this page")
    parser.add_argument("--contender", choices=tuple(CONTENDERS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--checkpointing", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.repeats < 1 or options.pairs < 1 or options.steps <= WARMUP:
        parser.error(f"--repeats and --pairs must be at least 1, --steps more than {WARMUP}")
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    return options


def main(arguments: list[str] | None = None) -> int:
    options = arguments_of(arguments)
    if options.contender is not None:
        task = Task(
            folder=options.folder, steps=options.steps, pairs=options.pairs, checkpointing=options.checkpointing,
            device=options.device,
        )  # fmt: skip
        with contextlib.redirect_stdout(sys.stderr):
            report = CONTENDERS[options.contender](task)
        print(json.dumps(report))
        return 0
    try:
        trl = version("trl")
    except ModuleNotFoundError:
        raise SystemExit(f"trl is not installed: {PEERS}") from None
    where = f"{hardware(torch.device(options.device))}, load {os.getloadavg()[0]:.1f} at the start"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder / "start")
        write_pairs(folder, options.pairs * options.steps)
        runs = measure(folder, options)
    difference = largest_difference(runs)
    if difference > TOLERANCE:
        raise SystemExit(f"the losses of the contenders differ by {difference:.1e}: they do not train the same")
    figures = judged(runs)
    report = {
        "date": datetime.now(UTC).date().isoformat(), "hardware": where, "trl": trl, "pairs": options.pairs,
        "steps": options.steps, "repeats": options.repeats, "largest_difference": difference, "figures": figures,
        "goal": GOALS, "goal_met": all(found["met"] for found in figures.values()),
    }  # fmt: skip
    text = as_text(report)
    print(text)
    if options.write is not None:
        write_block(options.write, "<!-- dpo:begin -->", "<!-- dpo:end -->", text)
    if options.json:
        print(json.dumps(report))
    return 0 if report["goal_met"] else 1


if __name__ == "__main__":
    sys.exit(main())
