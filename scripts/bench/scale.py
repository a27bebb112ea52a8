"""A million rows: building, checking, indexing, the first batch and a restore far away, each with time and memory.

    python -m medvlm.scripts.bench.scale --rows 1000000 --out runs/scale --write docs/benchmarks.md

Writes conversations about a few hundred pictures (every second row has one) as any user would have them, then runs the
commands as a user does, each in a process of its own, whose peak resident memory the operating system tells. Nothing is
cached between the steps but what the commands keep themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medvlm.data_recipes.manifest import write_atomic
from medvlm.scripts.marked_page import write_block

BEGIN, END = "<!-- scale:begin -->", "<!-- scale:end -->"
PICTURES, SIZE = 300, 256
FIRST_BATCH_S, RESTORE_S = 10.0, 1.0
POSITIONS = (10**3, 10**7)
RECIPE = """\
name: scale
format: messages
paths: [rows.jsonl]
licence: CC0-1.0
patient: {column: patient}
split: {shares: {train: 0.99, test: 0.01}}
question: open
"""
WORDS = (
    "effusion", "nodule", "mass", "pneumothorax", "consolidation", "atelectasis", "fracture", "cardiomegaly", "edema",
    "opacity",
)  # fmt: skip
SIZES = ("small", "moderate", "large", "faint", "dense", "round", "irregular", "subtle", "marked", "calcified")
ZONES = (
    "upper", "middle", "lower", "apical", "basal", "perihilar", "peripheral", "central", "anterior", "posterior",
)  # fmt: skip


def write_rows(folder: Path, rows: int) -> None:
    """``rows`` conversations of ``rows / 3`` patients and PICTURES textured pictures."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number in range(PICTURES):
        grey = np.kron(rng.integers(0, 255, (16, 16), dtype=np.uint8), np.ones((SIZE // 16, SIZE // 16), np.uint8))
        Image.fromarray(grey).save(folder / "images" / f"{number}.png")
    write_atomic(folder / "rows.jsonl", _lines(rows))
    write_atomic(folder / "recipe.yaml", RECIPE)


def _lines(rows: int) -> Iterator[str]:
    for number in range(rows):
        word, size, zone = WORDS[number % 10], SIZES[number // 10 % 10], ZONES[number // 100 % 10]
        # A patient has three rows and one picture, so that no picture is in two splits by construction of the bench.
        patient = number // 3
        row: dict[str, Any] = {
            "patient": f"p{patient if number % 2 == 0 else patient % PICTURES}",
            "messages": [
                {"role": "user", "content": f"What is seen in the {zone} zone of study {number}?"},
                {"role": "assistant", "content": f"A {size} {word}, {zone} zone, {number % 97} mm, study {number}."},
            ],
        }
        if number % 2:
            row["images"] = [f"images/{patient % PICTURES}.png"]
        yield json.dumps(row) + "\n"


def timed(arguments: list[str]) -> dict[str, Any]:
    """Run Python in a process: seconds, exit code, output, and the peak resident MiB of its largest process."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        run = subprocess.Popen([sys.executable, *arguments], stdout=out, stderr=err)
        # wait4 tells of this process and of those that it has waited for, not of the steps before.
        _, status, usage = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        return {
            "seconds": round(time.perf_counter() - began, 2), "peak_mib": round(usage.ru_maxrss / 1024),
            "exit": run.returncode, "out": out.read(), "err": err.read()[-2000:],
        }  # fmt: skip


def loader_step(folder: Path) -> dict[str, Any]:
    """In this process: index, first batch, and restores; run by ``main`` in a process of its own."""
    import torch

    from medvlm.data_recipes.loader import Loader
    from medvlm.data_recipes.pack_plan import Position
    from medvlm.data_recipes.rendering import Renderer
    from medvlm.model import MedVLMProcessor
    from medvlm.model.tokenizer import train_tokenizer
    from medvlm.train.config import DataConfig, LearningRates, Source, Stage
    from medvlm.train.data import prepare_data

    torch.set_num_threads(1)
    texts = [f"What is seen? A {size} {word} in the {zone} zone." for size in SIZES for word in WORDS for zone in ZONES]
    processor = MedVLMProcessor(train_tokenizer(texts, 400), patch_size=(2, 16, 16), max_patches={"image": 256})
    stage = Stage(
        name="scale", mixture=(Source(manifest="train.jsonl"),), steps=1, learning_rate=LearningRates(text=1e-3)
    )
    figures: dict[str, Any] = {}

    def data(lengths: Path) -> Loader:
        renderer = Renderer(processor, folder)
        made = prepare_data(stage, DataConfig(root=str(folder)), renderer, seed=0, lengths_folder=lengths)
        figures["rows"] = len(made.rows)
        return Loader(made.rows, made.plan, renderer, packs_per_step=1)

    began = time.perf_counter()
    loader = data(folder / "lengths")
    figures["index_s"] = time.perf_counter() - began
    steps = loader.steps()
    next(steps)
    figures["first_batch_s"] = time.perf_counter() - began
    steps.close()
    for packs in POSITIONS:
        # A position of that many packs: whatever came before it, a round, a window and a pack name it.
        window = packs // 50 % loader.plan.windows()
        state = Position(round=packs // 50 // loader.plan.windows(), window=window, pack=3, packs=packs).state_dict()
        for label in ("cold", "warm"):  # cold: its window was never measured on this machine
            loader.load_state_dict(state)
            began = time.perf_counter()
            steps = loader.steps()
            next(steps)
            figures[f"restore_{packs}_{label}_s"] = time.perf_counter() - began
            steps.close()
    figures["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}


def measure(folder: Path, rows: int, workers: int) -> dict[str, Any]:
    """All steps in turn."""
    write_rows(folder, rows)
    build = ["-m", "medvlm.scripts.cli", "data", "build", str(folder / "recipe.yaml"), "--out", str(folder / "data")]
    check = ["-m", "medvlm.scripts.cli", "data", "check", str(folder / "data"), "--out", str(folder / "check")]
    idle = timed(["-c", "import medvlm.train.data"])
    built = timed([*build, "--workers", str(workers)])
    checked = timed([*check, "--workers", str(workers)])
    loader = timed(["-m", "medvlm.scripts.bench.scale", "--step", str(folder / "data")])
    for name, step in (("build", built), ("loader", loader)):
        if step["exit"]:
            raise RuntimeError(f"{name} ended with {step['exit']}: {step['err']}")
    if checked["exit"] not in (0, 1):
        raise RuntimeError(f"check ended with {checked['exit']}: {checked['err']}")
    figures = json.loads(loader["out"].splitlines()[-1])
    restores = [value for name, value in figures.items() if name.startswith("restore_")]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "rows": rows,
        "imports_peak_mib": idle["peak_mib"],
        "build": {key: built[key] for key in ("seconds", "peak_mib")},
        "check": {key: checked[key] for key in ("seconds", "peak_mib", "exit")},
        "loader": figures,
        "goal": {"first_batch_s": FIRST_BATCH_S, "restore_s": RESTORE_S},
        "goal_met": figures["first_batch_s"] < FIRST_BATCH_S and max(restores) < RESTORE_S,
    }


def table(report: dict[str, Any]) -> str:
    """Markdown of ``report``."""
    loader, build, check = report["loader"], report["build"], report["check"]
    lines = [
        f"{report['rows']:,} rows, {report['date']}, {report['hardware']}; importing the training code alone takes "
        f"{report['imports_peak_mib']} MiB.",
        "",
        "| step | seconds | peak MiB |",
        "|---|---|---|",
        f"| `medvlm data build` | {build['seconds']:.0f} | {build['peak_mib']} |",
        f"| `medvlm data check` | {check['seconds']:.0f} | {check['peak_mib']} |",
        f"| index of the manifest | {loader['index_s']:.2f} | |",
        f"| first batch, index included | {loader['first_batch_s']:.2f} | {loader['peak_mib']:.0f} |",
    ]
    for packs in POSITIONS:
        cold, warm = (loader[f"restore_{packs}_{label}_s"] for label in ("cold", "warm"))
        what = f"restore at pack {packs:,}: window never measured / measured before"
        lines.append(f"| {what} | {cold:.2f} / {warm:.2f} | |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=Path("runs/scale"), help="folder of the rows and of what is made")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the table in this page")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--step", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.step is not None:
        print(json.dumps(loader_step(options.step)))
        return 0
    try:
        report = measure(options.out, options.rows, options.workers)
    except RuntimeError as error:
        print(f"scale: {error}", file=sys.stderr)
        return 1
    print(table(report))
    if options.write is not None:
        write_block(options.write, BEGIN, END, table(report))
    if options.json:
        print(json.dumps(report))
    return 0 if report["goal_met"] else 1


if __name__ == "__main__":
    sys.exit(main())
