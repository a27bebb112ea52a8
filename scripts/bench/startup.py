"""Time from command to first step, and time to refuse a training that cannot work.

    python -m medvlm.scripts.bench.startup --write docs/benchmarks.md

Everything goes through the command that a user types, each time in a process of its own. The first step: from the start
of ``medvlm train`` on a tiny model to the first row of its metrics, with what an earlier run leaves behind (compiled
modules, measured lengths) in place; beside it one step of transformers' Trainer on a random text model. The faults: a
configuration or data set with one thing wrong, from a misspelt key to images that are not there. A fault counts as told
when the command ends with code 2, names what is wrong, and does so within the goal.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from medvlm.data_recipes.phantoms.write import write_phantoms
from medvlm.scripts.bench.hardware import hardware
from medvlm.scripts.marked_page import write_block

BEGIN, END = "<!-- startup:begin -->", "<!-- startup:end -->"
FIRST_STEP_S, REFUSED_S, REFUSED_OF_20 = 8.0, 5.0, 18
CONFIG = """\
name: startup
output_dir: OUTPUT
model:
  vision: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64,
           patch_size: [2, 16, 16]}
  projector: {hidden_size: 48, merge: [1, 2, 2]}
  text:
    config: {model_type: qwen3, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1,
             head_dim: 16, intermediate_size: 64, max_position_embeddings: 1024, tie_word_embeddings: true}
  tokenizer: {train: {vocab_size: 400}}
  processor: {max_patches: {image: 36, volume: 64, video: 64}, max_depth: {volume: 8, video: 4}}
data: {root: ROOT, tokens_per_pack: 512, patches_per_pack: 512}
engine: {kind: accelerate, device: DEVICE}
stages:
  - name: align
    mixture: [{manifest: train_captions_2d.jsonl}]
    learning_rate: {projector: 1e-3}
    steps: 1
  - name: instruct
    mixture: [{manifest: train_2d.jsonl}, {manifest: train_text.jsonl}]
    learning_rate: {projector: 1e-3, text: 1e-3}
    steps: 1
"""
PEER = """
import sys, torch
from transformers import Qwen3Config, Qwen3ForCausalLM, Trainer, TrainingArguments
config = Qwen3Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
                     intermediate_size=64, vocab_size=400)
rows = [{"input_ids": torch.arange(64), "labels": torch.arange(64)} for _ in range(8)]
arguments = TrainingArguments(sys.argv[1], max_steps=1, report_to=[], use_cpu=sys.argv[2] == "cpu",
                              save_strategy="no", logging_strategy="no", disable_tqdm=True)
Trainer(Qwen3ForCausalLM(config), arguments, train_dataset=rows).train()
"""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing wrong: ``overrides`` of the command line, or words of the YAML; ``says`` is in the message."""

    name: str
    says: str
    overrides: tuple[str, ...] = ()
    old: str = ""
    new: str = ""
    damage: Callable[[Path], None] | None = None


def _replace_rows(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = root / "train_captions_2d.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        change(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _no_images(root: Path) -> None:
    def change(row: dict[str, Any]) -> None:
        for message in row["messages"]:
            for part in message["content"]:
                if "path" in part:
                    part["path"] = "elsewhere/" + part["path"]

    _replace_rows(root, change)


def _no_answers(root: Path) -> None:
    def change(row: dict[str, Any]) -> None:
        row["messages"] = [message for message in row["messages"] if message["role"] != "assistant"]

    _replace_rows(root, change)


def _no_rows(root: Path) -> None:
    (root / "train_captions_2d.jsonl").write_text("", encoding="utf-8")


FAULTS = (
    Fault(name="unknown key", says="learning_rates", old="learning_rate: {projector: 1e-3}\n    steps: 1\n  - name",
          new="learning_rates: {projector: 1e-3}\n    steps: 1\n  - name"),
    Fault(name="misspelt word", says="accelerat", overrides=("engine.kind=accelerat",)),
    Fault(name="wrong type", says="steps", overrides=("stages.align.steps=many",)),
    Fault(name="negative learning rate", says="learning rate", overrides=("stages.align.learning_rate.projector=-1",)),
    Fault(name="nothing is trained", says="trains nothing", overrides=("stages.align.learning_rate.projector=null",)),
    Fault(name="trained in full and by LoRA", says="LoRA",
          overrides=("stages.instruct.lora={targets: [text.attention]}",)),
    Fault(name="unknown LoRA target", says="text.atention",
          overrides=("stages.align.lora={targets: [text.atention]}",)),
    Fault(name="empty mixture", says="mixture", overrides=("stages.align.mixture=[]",)),
    Fault(name="two durations", says="epochs", overrides=("stages.align.epochs=1",)),
    Fault(name="ZeRO without DeepSpeed", says="zero_stage", overrides=("engine.zero_stage=2",)),
    Fault(name="no such manifest", says="nowhere.jsonl",
          overrides=("stages.instruct.mixture.0.manifest=nowhere.jsonl",)),
    Fault(name="no such data folder", says="nowhere", overrides=("data.root=nowhere",)),
    Fault(name="manifest without rows", says="no rows", damage=_no_rows),
    Fault(name="pairs in a supervised stage", says="preference",
          overrides=("stages.align.mixture.0.manifest=train_pairs.jsonl",)),
    Fault(name="test questions in training", says="must not be trained on",
          overrides=("stages.align.mixture.0.manifest=test_questions.jsonl",)),
    Fault(name="images that are not there", says="elsewhere/", damage=_no_images),
    Fault(name="no such tokenizer", says="tokenizer", old="tokenizer: {train: {vocab_size: 400}}",
          new="tokenizer: {pretrained: ./no/tokenizer}"),
    Fault(name="rows without an answer", says="assistant", damage=_no_answers),
    Fault(name="patch size that is no patch size", says="patch_size", overrides=("model.vision.patch_size=[2, 16]",)),
    Fault(name="budget smaller than any sample", says="tokens", overrides=("data.tokens_per_pack=4",)),
)  # fmt: skip


def command(name: str, config: Path, overrides: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "medvlm.scripts.cli", name, str(config), *overrides]


def refusal(name: str, fault: Fault, folder: Path, device: str) -> dict[str, Any]:
    """Run command ``name`` on ``fault``, in a copy of the data where it damages some."""
    root = folder / "data"
    if fault.damage is not None:
        root = folder / f"data-{name}-{FAULTS.index(fault)}"
        shutil.copytree(folder / "data", root)
        fault.damage(root)
    config = folder / f"{name}-{FAULTS.index(fault)}.yaml"
    text = CONFIG.replace("ROOT", str(root)).replace("DEVICE", device)
    text = text.replace("OUTPUT", str(config.with_suffix("")))
    if fault.old and text.count(fault.old) != 1:
        raise ValueError(f"fault {fault.name!r}: {fault.old!r} is not in the configuration once")
    config.write_text(text.replace(fault.old, fault.new) if fault.old else text, encoding="utf-8")
    began = time.perf_counter()
    done = subprocess.run(command(name, config, fault.overrides), capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    said = done.stderr.strip().splitlines()
    told = done.returncode == 2 and fault.says in done.stderr and "Traceback" not in done.stderr
    return {
        "fault": fault.name, "command": name, "seconds": round(seconds, 2), "told": told,
        "within_goal": told and seconds < REFUSED_S, "message": said[-1] if said else "",
    }  # fmt: skip


def first_step(folder: Path, number: int, device: str) -> float:
    """Seconds from the start of ``medvlm train`` to the first row of metrics.jsonl."""
    output = folder / f"run-{number}"
    config = output.with_suffix(".yaml")
    text = CONFIG.replace("ROOT", str(folder / "data")).replace("DEVICE", device).replace("OUTPUT", str(output))
    config.write_text(text, encoding="utf-8")
    if number:
        shutil.copytree(folder / "run-0" / "lengths", output / "lengths")
    metrics = output / "stages" / "01-align" / "metrics.jsonl"
    began = time.perf_counter()
    process = subprocess.Popen(
        command("train", config, ("--stage", "align")), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while not (metrics.is_file() and metrics.stat().st_size) and process.poll() is None:
        time.sleep(0.005)
    seconds = time.perf_counter() - began
    said = process.communicate()[1]
    if process.returncode:
        raise RuntimeError(f"the training ended with {process.returncode}: {said[-2000:]}")
    return seconds


def peer_step(folder: Path, device: str) -> float:
    """Seconds of a whole process that takes one step with transformers' Trainer."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", PEER, str(folder / "peer"), device], capture_output=True, check=True)
    return time.perf_counter() - began


def measure(folder: Path, device: str, repeats: int) -> dict[str, Any]:
    write_phantoms(folder / "data", patients=12, seed=3)
    first_step(folder, 0, device), peer_step(folder, device)  # warm: compiled modules, the file cache
    ours, peers = [], []
    for number in range(1, repeats + 1):
        ours.append(first_step(folder, number, device))
        peers.append(peer_step(folder, device))
    faults = [refusal(name, fault, folder, device) for fault in FAULTS for name in ("train", "plan")]
    told = {name: sum(row["within_goal"] for row in faults if row["command"] == name) for name in ("train", "plan")}
    first = statistics.median(ours)
    return {
        "date": datetime.now(UTC).date().isoformat(), "hardware": hardware(torch.device(device)),
        "first_step_s": round(first, 2), "trainer_step_s": round(statistics.median(peers), 2), "faults": faults,
        "told_within_goal": told,
        "goal": {"first_step_s": FIRST_STEP_S, "refused_s": REFUSED_S, "told_of_20": REFUSED_OF_20},
        "goal_met": first <= FIRST_STEP_S and min(told.values()) >= REFUSED_OF_20,
    }  # fmt: skip


def table(report: dict[str, Any]) -> str:
    lines = [
        f"{report['date']}, {report['hardware']}.",
        "",
        "| from command to | seconds | goal |",
        "|---|---|---|",
        f"| first step of `medvlm train`, tiny model with images | {report['first_step_s']:.1f} | {FIRST_STEP_S:.0f} |",
        f"| the end of one step of transformers' Trainer, text only | {report['trainer_step_s']:.1f} | |",
        "",
        f"Faults told in under {REFUSED_S:.0f} s: {report['told_within_goal']['train']} of {len(FAULTS)} by "
        f"`medvlm train`, {report['told_within_goal']['plan']} by `medvlm plan`; the goal is {REFUSED_OF_20}.",
        "",
        "| fault | `medvlm train`, s | `medvlm plan`, s |",
        "|---|---|---|",
    ]
    for fault in FAULTS:
        cells = []
        for name in ("train", "plan"):
            row = next(r for r in report["faults"] if r["fault"] == fault.name and r["command"] == name)
            cells.append(f"{row['seconds']:.1f}" if row["told"] else "not told")
        lines.append(f"| {fault.name} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="of the first step; the median counts (default 3)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the table in this page")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    options = parser.parse_args(arguments)
    device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        report = measure(Path(folder), device, options.repeats)
    print(table(report))
    for row in report["faults"]:
        if not row["told"]:
            print(f"not told: {row['fault']} by {row['command']}: {row['message']}", file=sys.stderr)
    if options.write is not None:
        write_block(options.write, BEGIN, END, table(report))
    if options.json:
        print(json.dumps(report))
    return 0 if report["goal_met"] else 1


if __name__ == "__main__":
    sys.exit(main())
