"""Time until a resumed loader gives its first step, after few and after very many packs.

    python -m medvlm.scripts.bench.resume --write docs/benchmarks.md

Ours goes on at a position of three integers. The peers are what transformers' Trainer does (``accelerate``'s
``skip_first_batches``), over the same rows with the same rendering: for a data set that can be indexed it draws and
drops the indices of every batch that was seen; for a stream, which packing needs, it makes every batch again. The last
is run for few batches only, and its time for many is that of one batch times their number: nobody waits for days in a
benchmark; the table says so.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import skip_first_batches
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset

from medvlm.data_recipes.loader import Loader
from medvlm.data_recipes.pack_plan import Position
from medvlm.data_recipes.rendering import Renderer
from medvlm.model import MedVLMProcessor
from medvlm.model.tokenizer import train_tokenizer
from medvlm.scripts.bench.hardware import hardware
from medvlm.scripts.marked_page import write_block
from medvlm.train.config import DataConfig, LearningRates, Source, Stage
from medvlm.train.data import StageData, prepare_data

BEGIN, END = "<!-- resume:begin -->", "<!-- resume:end -->"
CONSUMED = (10**3, 10**7)
GOAL_S = 1.0
PICTURES, BATCH = 50, 8


def write_rows(folder: Path, rows: int) -> None:
    """``rows`` questions about PICTURES textured pictures."""
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        grey = np.kron(rng.integers(0, 255, (16, 16), dtype=np.uint8), np.ones((16, 16), np.uint8))
        Image.fromarray(grey).save(folder / f"{number}.png")
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for number in range(rows):
            image = {"type": "image", "path": f"{number % PICTURES}.png"}
            asked = [image, {"type": "text", "text": f"What is seen in study {number}?"}]
            answer = [{"type": "text", "text": f"A nodule of {number % 97} mm."}]
            row = {
                "sample_id": f"s{number}", "patient_id": f"p{number % PICTURES}", "study_id": f"e{number}",
                "source": "bench", "licence": "CC0-1.0", "split": "train",
                "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}],
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")


def prepare(folder: Path) -> tuple[StageData, Renderer]:
    processor = MedVLMProcessor(
        train_tokenizer(["What is seen in study 0123456789? A nodule of mm."], 300), patch_size=(2, 16, 16),
        max_patches={"image": 64},
    )  # fmt: skip
    rates = LearningRates(text=1e-3)
    stage = Stage(name="resume", mixture=(Source(manifest="train.jsonl"),), steps=1, learning_rate=rates)
    renderer = Renderer(processor, folder)
    data = prepare_data(
        stage, DataConfig(root=str(folder), tokens_per_pack=1024), renderer, seed=0, lengths_folder=folder / "lengths"
    )
    return data, renderer


def ours(data: StageData, renderer: Renderer, consumed: int) -> float:
    """Seconds from a loader and a position to its first step; the window there was never measured in this process."""
    windows = data.plan.windows()
    state = Position(round=consumed // windows, window=consumed % windows, pack=3, packs=consumed).state_dict()
    loader = Loader(data.rows, data.plan, renderer, packs_per_step=1)
    began = time.perf_counter()
    loader.load_state_dict(state)
    steps = loader.steps()
    next(steps)
    seconds = time.perf_counter() - began
    steps.close()
    return seconds


class Rendered(Dataset):
    """Any row by its number, as often as it is asked for: numbers go round."""

    def __init__(self, data: StageData, renderer: Renderer, length: int) -> None:
        self.rows, self.renderer, self.length = data.rows, renderer, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        row = self.rows.row(index % len(self.rows))
        return self.renderer.sides(row)  # type: ignore[arg-type]


class Stream(IterableDataset):
    """The same rows in turn, without end."""

    def __init__(self, rendered: Rendered) -> None:
        self.rendered = rendered

    def __iter__(self) -> Iterator[Any]:
        for index in range(len(self.rendered)):
            yield self.rendered[index]


def skipped(loader: DataLoader, batches: int) -> float:
    """Seconds until the first batch after ``batches`` that were seen."""
    began = time.perf_counter()
    next(iter(skip_first_batches(loader, batches)))
    return time.perf_counter() - began


def measure(rows: int, repeats: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder, rows)
        data, renderer = prepare(folder)
        ours(data, renderer, 0)  # imports and the first round are no part of a restore
        times: dict[str, dict[int, list[float]]] = {k: {n: [] for n in CONSUMED} for k in ("ours", "indexed", "stream")}
        for _ in range(repeats):
            for consumed in CONSUMED:
                times["ours"][consumed].append(ours(data, renderer, consumed))
                rendered = Rendered(data, renderer, (consumed + 1) * BATCH)
                # Sequential numbers: a shuffled sampler would add 8 bytes a sample and its permutation.
                indexed = DataLoader(rendered, BATCH, collate_fn=list)
                times["indexed"][consumed].append(skipped(indexed, consumed))
            few = CONSUMED[0]
            stream = DataLoader(Stream(Rendered(data, renderer, (few + 1) * BATCH)), BATCH, collate_fn=list)
            times["stream"][few].append(skipped(stream, few))
    medians = {k: {n: statistics.median(v) for n, v in by.items() if v} for k, by in times.items()}
    medians["stream"][CONSUMED[1]] = medians["stream"][CONSUMED[0]] / CONSUMED[0] * CONSUMED[1]
    return {
        "date": datetime.now(UTC).date().isoformat(), "hardware": hardware(torch.device("cpu")), "rows": rows,
        "seconds": {k: {str(n): round(v, 4) for n, v in by.items()} for k, by in medians.items()},
        "extrapolated": ["stream at 10000000"], "goal": {"restore_s": GOAL_S},
        "goal_met": max(medians["ours"].values()) < GOAL_S,
    }  # fmt: skip


def table(report: dict[str, Any]) -> str:
    names = {
        "ours": "ours: three integers",
        "indexed": "skip_first_batches, rows by number (no packing)",
        "stream": "skip_first_batches, a stream",
    }
    lines = [
        f"{report['date']}, {report['hardware']}; {report['rows']:,} rows, batches of {BATCH}.",
        "",
        "| first step after | 1,000 batches, s | 10,000,000 batches, s |",
        "|---|---|---|",
    ]
    for key, name in names.items():
        few, many = (report["seconds"][key][str(n)] for n in CONSUMED)
        days = f" ({many / 86400:.1f} days, not run: 10,000 times the time for 1,000)" if key == "stream" else ""
        lines.append(f"| {name} | {few:.3f} | {many:,.2f}{days} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3, help="the medians count (default 3)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the table in this page")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    options = parser.parse_args(arguments)
    report = measure(options.rows, options.repeats)
    print(table(report))
    if options.write is not None:
        write_block(options.write, BEGIN, END, table(report))
    if options.json:
        print(json.dumps(report))
    return 0 if report["goal_met"] else 1


if __name__ == "__main__":
    sys.exit(main())
