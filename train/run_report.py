"""report.html of a training: what each stage did, where its time went, and what the model was shown. One file, offline.

    python -m medvlm.train.run_report runs/NAME

It is written at the end of each stage and when a training stops; this command makes it again. It shows samples: keep it
where the data may be.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from medvlm.data_recipes.manifest import write_atomic
from medvlm.train.line_plot import Line, lines_svg, shares_svg
from medvlm.train.monitor import METRICS
from medvlm.train.verdict import PHASES, sums_of_rows, verdict_of_rows

REPORT = "report.html"
OVERVIEW = "overview.json"
PACKAGES = ("medvlm", "torch", "transformers", "deepspeed", "accelerate", "peft", "bitsandbytes", "flash-attn")


def environment(device: torch.device, world_size: int) -> dict[str, str]:
    """What a stage ran on and with, as words; no name of a machine or a user."""
    cpu = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads a process"
    found = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU: {cpu}",
        "processes": str(world_size),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_overview(folder: Path, **known: Any) -> None:
    """Keep in the folder of a stage what only its start knows: plain JSON for the report."""
    write_atomic(folder / OVERVIEW, json.dumps(known, allow_nan=False) + "\n")


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """What the folder of one stage tells.

    Attributes:
        rows: of metrics.jsonl.
        done: done.json, None when the stage has not ended.
        overview: as ``write_overview`` kept it.
        quarantined: lines of quarantine.jsonl.
    """

    name: str
    rows: list[dict[str, Any]]
    done: dict[str, Any] | None
    overview: dict[str, Any]
    quarantined: int


def read_stage(folder: Path) -> StageRecord:
    """The record of one stage; what is not there yet is empty."""
    rows = []
    path = folder / METRICS
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # the line that is just being written
    quarantine = folder / "quarantine.jsonl"
    lines = quarantine.read_text(encoding="utf-8").splitlines() if quarantine.is_file() else []
    return StageRecord(
        name=folder.name.partition("-")[2], rows=rows, done=_json(folder / "done.json"),
        overview=_json(folder / OVERVIEW) or {}, quarantined=len(lines),
    )  # fmt: skip


def _json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write_run_report(output: Path, problem: str | None = None) -> Path:
    """Write ``output``/report.html from what the run folder holds.

    Args:
        problem: why the training stopped, when it did.

    Raises:
        FileNotFoundError: ``output`` is no run folder.
    """
    folders = sorted(path for path in (output / "stages").glob("*-*") if path.name != "00-start")
    if not folders:
        raise FileNotFoundError(f"{output} holds no stages/; give the output_dir of a training")
    records = [read_stage(folder) for folder in folders]
    loader = FileSystemLoader(Path(__file__).parent)
    environment_ = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    curriculum = output / "curriculum.yaml"
    html = environment_.get_template("run_report.html").render(
        name=output.name,
        problem=problem,
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        stages=[stage_view(record) for record in records],
        gallery=[(r.name, r.overview["samples"]) for r in records if r.overview.get("samples")],
        environments=[(r.name, r.overview["environment"]) for r in records if r.overview.get("environment")],
        curriculum=curriculum.read_text(encoding="utf-8") if curriculum.is_file() else "",
    )
    path = output / REPORT
    write_atomic(path, html)
    return path


@contextmanager
def reported(output: Path, rank: int) -> Iterator[None]:
    """Write the report when the block ends, in whatever way; a page that cannot be written ends no training."""
    problem = None
    try:
        yield
    except BaseException as error:
        problem = str(error) or type(error).__name__
        raise
    finally:
        if rank == 0:
            try:
                write_run_report(output, problem)
            except Exception as error:  # noqa: BLE001
                print(f"{output / REPORT} was not written: {error}", file=sys.stderr)


def stage_view(record: StageRecord) -> dict[str, Any]:
    """What the page shows of one stage."""
    rows, done = record.rows, record.done
    steady = rows[1:] if len(rows) > 1 else rows
    phases, mfu = sums_of_rows(steady)
    seconds = sum(row["seconds"] for row in steady)
    padding = [row["padding"] for row in rows if row.get("padding") is not None]
    memory = [row["memory_gib"] for row in rows if row.get("memory_gib") is not None]
    named = {f"{name}: {PHASES[name]}": phases.get(name, 0.0) for name in PHASES}
    trained = (done or record.overview).get("trained") or {}
    return {
        "name": record.name,
        "state": "done" if done else "not finished",
        "steps": f"{rows[-1]['step'] if rows else 0:,}"
        + (f" of {record.overview['steps']:,}" if record.overview.get("steps") else ""),
        "trained": ", ".join(f"{part} {count:,}" for part, count in trained.items()),
        "minutes": f"{done['minutes']:g}" if done else f"{sum(row['seconds'] for row in rows) / 60:.2g}",
        "quarantined": record.quarantined,
        "loss": f"{rows[0]['loss']:.4g} → {rows[-1]['loss']:.4g}"
        if rows and rows[0]["loss"] is not None and rows[-1]["loss"] is not None
        else "–",
        "tokens_per_s": f"{sum(row['tokens'] for row in steady) / seconds:,.0f}" if seconds else "–",
        "mfu": "–" if mfu is None else f"{mfu:.1%}",
        "peak": record.overview.get("peak") or "",
        "padding": f"{sum(padding) / len(padding):.1%}" if padding else "–",
        "memory": f"{max(memory):.2f} GiB" if memory else "–",
        "preflight": record.overview.get("preflight") or "",
        "verdict": verdict_of_rows(rows) if phases else "",
        "phases": Markup(shares_svg("Where the time went", named)),
        "plots": [Markup(plot) for plot in plots_of(rows) if plot],
    }


def plots_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """SVG of one stage over its steps; an empty string for what no row tells."""
    steps = [row["step"] for row in rows]

    def line(name: str, field: str) -> Line:
        return name, steps, [row.get(field) for row in rows]

    rates = dict.fromkeys(name for row in rows for name in row.get("learning_rate", {}))
    scores = dict.fromkeys(name for row in rows for name in row.get("scores", {}))
    asked = [row for row in rows if row.get("scores")]
    waits = [row.get("data_wait_s", 0.0) / max(row["seconds"], 1e-9) for row in rows]
    recomputed = [line("HFU", "hfu")] if any(row.get("hfu") != row.get("mfu") for row in rows) else []
    known = {
        "stage", "step", "loss", "grad_norm", "tokens_per_s", "patches_per_s", "tokens", "supervised_tokens",
        "visual_tokens", "visual_tokens_made", "seconds", "data_wait_s", "padding", "mfu", "hfu", "memory_gib",
    }  # fmt: skip
    others = dict.fromkeys(
        name for row in rows for name, value in row.items() if name not in known and isinstance(value, int | float)
    )
    return [
        lines_svg("Loss", [line("loss", "loss")]),
        lines_svg(
            "Task scores",
            [
                (name.replace("_", " "), [row["step"] for row in asked], [row["scores"].get(name) for row in asked])
                for name in scores
            ],
            percent=True,
            smooth=False,
        ),
        lines_svg(
            "Learning rate", [(n, steps, [row["learning_rate"].get(n) for row in rows]) for n in rates], smooth=False
        ),
        lines_svg("Gradient norm before clipping", [line("norm", "grad_norm")]),
        lines_svg("Tokens per second, waits included", [line("tokens/s", "tokens_per_s")]),
        lines_svg(
            "Shares",
            [line("padding", "padding"), ("data wait", steps, waits), line("MFU", "mfu"), *recomputed],
            percent=True,
        ),
        lines_svg("Memory, most so far (GiB)", [line("memory", "memory_gib")], smooth=False),
        *(lines_svg(name.replace("_", " ").capitalize(), [line(name, name)]) for name in others),
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="medvlm report", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("run", type=Path, help="output_dir of a training, finished or not")
    options = parser.parse_args(arguments)
    try:
        print(write_run_report(options.run))
    except (OSError, ValueError) as error:
        print(f"run_report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
