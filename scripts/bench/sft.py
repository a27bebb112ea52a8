"""Useful tokens a second of supervised fine-tuning: ours, TRL's SFTTrainer and transformers' Trainer.

    python -m medvlm.scripts.bench.sft [--repeats 3] [--steps 10] [--device auto] [--json] [--write docs/benchmarks.md]

All train the same small Qwen2.5-VL with random weights, in full, with AdamW in the same precision, on the same samples:
45 % short questions on an image, 30 % chats, 15 % texts, 10 % volumes shown as 16 images. The peers take 8 samples a
step, padded to the longest by their collators, TRL as it stands and Trainer with the collator of transformers'
examples; we take one pack a step. Each training runs in a process of its own, contenders in turn, repeats interleaved.

Useful tokens are those that are no padding: prompts, placeholders of images and answers. Model time is the step without
the collator (for us: without waiting for the loader), so that reading of pictures stands apart.

The limit of packing alone is 1 / (1 - padding of TRL). Exit code: 0 when medvlm makes at least 2.4 times the tokens a
second of TRL and at least 0.9 of that limit, else 1. TRL must be installed: see docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import torch

from medvlm.data_recipes.progress import tracking
from medvlm.scripts.bench.hardware import hardware
from medvlm.scripts.marked_page import write_block

GOALS = {"times_trl": 2.4, "of_limit": 0.9}
Runs = dict[str, list[dict[str, float]]]
"""Contender -> what each repeat reported."""


def one(who: str, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """One training in a process of its own.

    Raises:
        SystemExit: it failed; its output says why.
    """
    command = [
        sys.executable, "-m", "medvlm.scripts.bench.sft", "--contender", who, "--folder", str(folder),
        "--steps", str(options.steps), "--batch", str(options.batch), "--tokens", str(options.tokens),
        "--device", options.device,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{who} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def median(runs: list[dict[str, float]], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def table(runs: Runs, found: dict[str, float], device: torch.device) -> str:
    """Markdown."""
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {hardware(device)}; medians of {len(runs['medvlm'])} interleaved repeats.",
        "",
        "| | useful tokens/s | of model time | data | padding |",
        "|---|---|---|---|---|",
    ]
    for who, own in runs.items():
        lines.append(
            f"| {who} | {median(own, 'tokens_per_second'):,.0f} | {median(own, 'model_tokens_per_second'):,.0f} | "
            f"{median(own, 'data_share'):.1%} | {median(own, 'padding'):.1%} |"
        )
    told = f"{found['times_trl']:.2f} times TRL, {found['times_transformers']:.2f} times transformers"
    return "\n".join([*lines, "", f"{told}; {found['of_limit']:.2f} of 1 / (1 - padding of TRL)."])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m medvlm.scripts.bench.sft", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, default=3, help="trainings of each contender (default 3)")
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps of each, two untimed (default 10)")
    parser.add_argument("--batch", type=int, default=8, help="samples of a step of the peers (default 8)")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of a pack of ours (default 2048)")
    parser.add_argument("--samples", type=int, default=200, help="that are written (default 200)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--json", action="store_true", help="the last line printed is one JSON object")
    parser.add_argument("--write", type=Path, help="page between whose sft markers the table goes")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.contender is not None:
        from medvlm.scripts.bench.sft_contenders import CONTENDERS, Task

        task = Task(
            folder=options.folder, steps=options.steps, batch=options.batch, tokens=options.tokens,
            device=options.device,
        )  # fmt: skip
        print(json.dumps(CONTENDERS[options.contender](task)))
        return 0
    from medvlm.scripts.bench.sft_data import write_samples, write_start

    runs: Runs = {"medvlm": [], "TRL": [], "transformers": []}
    with (
        tempfile.TemporaryDirectory() as place,
        tracking("trainings", len(runs) * options.repeats) as track,
    ):
        folder = Path(place)
        write_start(folder / "start")
        write_samples(folder, options.samples)
        for _ in range(options.repeats):
            for who, own in runs.items():
                own.append(one(who, options, folder))
                track.advance()
    speed = {who: median(own, "tokens_per_second") for who, own in runs.items()}
    found = {f"times_{who.lower()}": speed["medvlm"] / speed[who] for who in ("TRL", "transformers")}
    found["of_limit"] = found["times_trl"] * (1 - median(runs["TRL"], "padding"))
    met = {name: found[name] >= goal for name, goal in GOALS.items()}
    device = torch.device(options.device)
    text = table(runs, found, device)
    print(text)
    if options.write is not None:
        write_block(options.write, "<!-- sft:begin -->", "<!-- sft:end -->", text)
    if options.json:
        told = {
            "bench": "sft", "date": f"{datetime.now(UTC):%Y-%m-%d}", "hardware": hardware(device), "runs": runs,
            "found": found, "goal": GOALS, "met": met, "goal_met": all(met.values()),
        }  # fmt: skip
        print(json.dumps(told))
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
