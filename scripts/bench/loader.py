"""File to patches on one core: ours, WebDataset, MosaicML streaming, HF datasets, and the decoders alone.

    python -m medvlm.scripts.bench.loader [--json] [--repeats 7] [--out FOLDER]

The files are written first, into a temporary folder. Every contender goes over every group of files once a repeat, in
turn, in one process with one thread; what counts is CPU time of the process, median over repeats, because others may
use the machine (elapsed time stands beside it). ``--json``: the last line of standard output is one JSON object.

The limits:

- JPEG: libjpeg-turbo (simplejpeg), the file's bytes to pixels in the file's own colour, at the scale that ours decodes
  at: no way to patches of this size can do without that. Full size and full RGB are measured too.
- .nii.gz: zlib on the whole file. .npy: np.load, a copy of the file in memory. Both leave the patches, of which as many
  bytes are written as are read, entirely to the contender; "+ patches" adds one copy of them.
- The patch cache, which a training reads from its second round on: np.load of the same patches.

Exit code: 0 when all goals were met, 1 when one was not, or could not be judged because a package is absent.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import io
import json
import os
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medvlm.data_recipes.manifest import write_atomic
from medvlm.data_recipes.patch_cache import PatchCache
from medvlm.data_recipes.progress import tracking
from medvlm.data_recipes.readers.header_size import header_size
from medvlm.data_recipes.scaled_reading import read_for
from medvlm.model import MedVLMProcessor
from medvlm.model.tokenizer import train_tokenizer
from medvlm.scripts.bench.hardware import processor_name
from medvlm.scripts.bench.loader_files import QUALITY, VOLUME, Group, write
from medvlm.scripts.bench.loader_peers import PICTURE_PEERS, VOLUME_PEERS, Pass, Size3

OURS, HF = "medvlm", "HF datasets"
GOALS = {
    "JPEG of the limit": 0.85, "JPEG over HF": 3.0, "nii.gz of the limit": 0.85, "npy of the limit": 0.85,
    "cached volume of np.load": 0.85,
}  # fmt: skip


@dataclass(kw_only=True)
class Timing:
    """Seconds of one contender for one visual of a group, one number a repeat."""

    cpu: list[float] = field(default_factory=list)
    elapsed: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, float]:
        """Median, least and most CPU milliseconds, and visuals a second of CPU and of elapsed time."""
        return {
            "ms": 1e3 * statistics.median(self.cpu),
            "ms_least": 1e3 * min(self.cpu),
            "ms_most": 1e3 * max(self.cpu),
            "per_second": 1 / statistics.median(self.cpu),
            "per_second_elapsed": 1 / statistics.median(self.elapsed),
        }


Table = dict[str, dict[str, Timing]]
"""Group -> contender -> timing."""


def over(paths: Iterable[Path], work: Callable[[Path], Any]) -> Pass:
    listed = list(paths)

    def one_pass() -> int:
        for path in listed:
            work(path)
        return len(listed)

    return one_pass


def ours(group: Group, processor: MedVLMProcessor) -> Pass:
    """What data_recipes.rendering.Renderer.visual does without its caches."""

    def one_pass() -> int:
        for ref in group.refs:
            processor.patch(read_for(ref, group.root, processor))
        return len(group.refs)

    return one_pass


def picture_limits(group: Group, size: Size3) -> dict[str, Pass]:
    """libjpeg-turbo alone; empty without simplejpeg."""
    if importlib.util.find_spec("simplejpeg") is None:
        return {}
    import simplejpeg

    own = "GRAY" if "grey" in group.name else "RGB"

    def decode(colour: str, **scale: int) -> Pass:
        return over(group.paths, lambda path: simplejpeg.decode_jpeg(path.read_bytes(), colour, **scale))

    return {
        "limit: libjpeg-turbo, own colour, scaled": decode(own, min_height=size[1], min_width=size[2]),
        "libjpeg-turbo, own colour, full size": decode(own),
        "libjpeg-turbo, RGB, full size": decode("RGB"),
    }


def volume_limits(group: Group, size: Size3, patches: np.ndarray) -> dict[str, Pass]:
    """zlib or np.load alone, and with one copy of the patches."""
    if group.name == "npy":
        unpack: Callable[[Path], Any] = np.load
        name = "np.load"
    else:
        unpack, name = (lambda path: zlib.decompress(path.read_bytes(), 31)), "zlib"
    found = {
        f"limit: {name}": over(group.paths, unpack),
        f"{name} + patches": over(group.paths, lambda path: (unpack(path), patches.copy())),
    }
    if group.name == "nii.gz" and importlib.util.find_spec("isal") is not None:
        from isal import isal_zlib

        found["ISA-L"] = over(group.paths, lambda path: isal_zlib.decompress(path.read_bytes(), 31))
    return found


def from_cache(group: Group, processor: MedVLMProcessor, folder: Path) -> dict[str, Pass]:
    """What a training with ``data.cache`` does from its second round on, and np.load of as many bytes."""
    cache = PatchCache(folder / "cache")
    loaded = folder / "patches"
    loaded.mkdir(exist_ok=True)
    names = [f"{group.name}-{number}" for number in range(len(group.refs))]
    for name, ref in zip(names, group.refs, strict=True):
        visual = processor.patch(read_for(ref, group.root, processor))
        cache.put(name, visual)
        np.save(loaded / f"{name}.npy", visual.patches)

    def one_pass() -> int:
        for name in names:
            assert cache.get(name) is not None
        return len(names)

    return {"patch cache": one_pass, "patches: np.load": over([loaded / f"{name}.npy" for name in names], np.load)}


def contenders(
    pictures: list[Group], volumes: list[Group], processor: MedVLMProcessor, folder: Path
) -> tuple[dict[str, dict[str, Pass]], dict[str, str]]:
    """Group -> contender -> one pass over the group; and the packages that are absent, with who needs them."""
    found: dict[str, dict[str, Pass]] = {}
    absent: dict[str, str] = {} if importlib.util.find_spec("simplejpeg") else {"simplejpeg": "the limit of JPEG"}
    for group in [*pictures, *volumes]:
        kind = group.refs[0].kind
        whole = header_size(group.refs[0], group.root)
        assert whole is not None
        size = processor.rule.target_size(whole, kind)
        table = {OURS: ours(group, processor)}
        if kind == "image":
            table |= picture_limits(group, size)
        else:
            patches = processor.patch(read_for(group.refs[0], group.root, processor)).patches
            table |= volume_limits(group, size, patches) | from_cache(group, processor, folder)
        for name, (make, package) in (PICTURE_PEERS if kind == "image" else VOLUME_PEERS[group.name]).items():
            if importlib.util.find_spec({"mosaicml-streaming": "streaming"}.get(package, package)) is None:
                absent[package] = name
            else:
                table[name] = make(group, size, folder)
        found[group.name] = table
    return found, absent


def measure(found: dict[str, dict[str, Pass]], repeats: int) -> Table:
    """Every contender over every group in turn, ``repeats`` times after one that does not count; each time twice, of
    which the second is timed."""
    timings: Table = {group: {name: Timing() for name in table} for group, table in found.items()}
    rounds = sum(len(table) for table in found.values()) * (repeats + 1)
    with tracking("file to patches", rounds) as track:
        for repeat in range(repeats + 1):
            for group, table in found.items():
                names = list(table)
                for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
                    table[name]()  # what the contender before left in caches and in freed memory is not its own
                    gc.collect()
                    elapsed, cpu = time.perf_counter(), time.process_time()
                    count = table[name]()
                    cpu, elapsed = time.process_time() - cpu, time.perf_counter() - elapsed
                    if repeat:
                        timings[group][name].cpu.append(cpu / count)
                        timings[group][name].elapsed.append(elapsed / count)
                    track.advance()
    return timings


def judged(timings: Table, pictures: list[str]) -> dict[str, dict[str, Any]]:
    """The goals: value, goal and whether it is met; None where a contender is absent.

    JPEG is judged over all sizes together: the same number of files of each, so the seconds of a file are added up.
    """

    def seconds(groups: list[str], start: str) -> float | None:
        """Of the fastest contender whose name begins so, one visual of each group."""
        names = [name for name in timings[groups[0]] if name.startswith(start)]
        sums = [sum(statistics.median(timings[group][name].cpu) for group in groups) for name in names]
        return min(sums, default=None)

    values: dict[str, float | None] = {}
    for goal, groups, other in (
        ("JPEG of the limit", pictures, "limit"),
        ("JPEG over HF", pictures, HF),
        ("nii.gz of the limit", ["nii.gz"], "limit"),
        ("npy of the limit", ["npy"], "limit"),
        ("cached volume of np.load", ["nii.gz", "npy"], "patches: np.load"),
    ):
        theirs, mine = seconds(groups, other), seconds(groups, "patch cache" if "cached" in goal else OURS)
        values[goal] = None if theirs is None or mine is None else theirs / mine
    return {
        goal: {"value": value, "goal": GOALS[goal], "met": None if value is None else value >= GOALS[goal]}
        for goal, value in values.items()
    }


def as_text(report: dict[str, Any]) -> str:
    """Markdown tables of the report."""
    lines = [f"{report['date']}, {report['hardware']}; JPEG quality {QUALITY}, CT {VOLUME}", ""]
    lines += ["| files | contender | CPU ms a visual | least to most | visuals/s of CPU | of elapsed |"]
    lines += ["|---|---|---|---|---|---|"]
    for group, table in report["figures"].items():
        for name, row in table.items():
            lines.append(
                f"| {group} | {name} | {row['ms']:.2f} | {row['ms_least']:.2f} to {row['ms_most']:.2f} "
                f"| {row['per_second']:.1f} | {row['per_second_elapsed']:.1f} |"
            )
    lines += ["", "| goal | at least | measured | met |", "|---|---|---|---|"]
    for goal, row in report["goals"].items():
        value = "not measured" if row["value"] is None else f"{row['value']:.2f}"
        lines.append(f"| {goal} | {row['goal']} | {value} | {'yes' if row['met'] else 'no'} |")
    for package, who in report["absent"].items():
        lines.append(f"\n{who} was left out: pip install {package}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="passes of every contender over every group (7)")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--out", type=Path, help="folder for loader.json")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    torch.set_num_threads(1)
    processor = MedVLMProcessor(train_tokenizer(["Is there a nodule? yes no"] * 4, 400))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures, volumes = write(folder)
        with contextlib.redirect_stdout(io.StringIO()):
            found, absent = contenders(pictures, volumes, processor, folder)
        timings = measure(found, options.repeats)
    goals = judged(timings, [group.name for group in pictures])
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{processor_name()}, {os.cpu_count()} cores, one used",
        "repeats": options.repeats,
        "figures": {group: {n: t.to_dict() for n, t in table.items()} for group, table in timings.items()},
        "goals": goals,
        "absent": absent,
        "goal_met": all(row["met"] is True for row in goals.values()) and not absent,
    }
    print(as_text(report))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        write_atomic(options.out / "loader.json", json.dumps(report, indent=1) + "\n")
    if options.json:
        print(json.dumps(report))
    return 0 if report["goal_met"] else 1


if __name__ == "__main__":
    sys.exit(main())
