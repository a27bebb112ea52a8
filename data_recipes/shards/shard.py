"""Manifests -> WebDataset shards with their visuals, ready for streaming; stopped at any moment, it goes on later."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.one_writer import one_writer
from medvlm.data_recipes.progress import tracking
from medvlm.data_recipes.rows import ManifestRows
from medvlm.data_recipes.shards.build import Job, Record, record_name
from medvlm.data_recipes.shards.byte_ranges import is_url, join, local_path
from medvlm.data_recipes.shards.engines import run_processes
from medvlm.data_recipes.shards.members import Settings
from medvlm.data_recipes.shards.plan import make_job
from medvlm.data_recipes.shards.reader import FORMAT, INDEX, VERSION
from medvlm.data_recipes.shards.resolution import parse_resolution
from medvlm.data_recipes.shards.storage import prepare, write_text

QUARANTINE = "quarantine.jsonl"

Engine = Callable[[Job, range, int], Iterator[Record]]


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a finished set holds; ``quarantined`` rows are in none of its shards."""

    rows: int
    bytes: int
    shards: int
    quarantined: int


def build(job: Job, engine: Engine = run_processes, *, workers: int = 1, progress: bool = False) -> Built:
    """Make every shard that is not there yet, then quarantine.jsonl, then index.json: a set without it is unfinished.

    Raises:
        OSError: see build.build_shard.
        KeyboardInterrupt: what is finished stays; the same call goes on from there.
    """
    layout, rows = job.layout, len(job.layout.order)
    entries: dict[str, dict[str, Any]] = {}
    quarantine: dict[str, list[str]] = {}
    with tracking("writing shards", rows, show=progress) as track:
        running = engine(job, range(layout.shards), workers)
        try:
            for record in running:
                track.advance(record.rows + len(record.quarantine))
                entries[record.shard] = {
                    "name": record.shard,
                    "rows": record.rows,
                    "bytes": record.tar_bytes,
                    "sha256": record.sha256,
                    "index": record_name(record.shard),
                    "index_sha256": hashlib.sha256(record.to_text().encode()).hexdigest(),
                }
                quarantine[record.shard] = [json.dumps(bad, ensure_ascii=False) + "\n" for bad in record.quarantine]
        finally:
            running.close()  # type: ignore[attr-defined]
    shards = [entries[layout.name(number)] for number in range(layout.shards)]
    refused = [line for entry in shards for line in quarantine[entry["name"]]]
    write_text(job.out, QUARANTINE, "".join(refused))
    index = {
        "format": FORMAT,
        "version": VERSION,
        "split": layout.split,
        "rows": sum(entry["rows"] for entry in shards),
        "bytes": sum(entry["bytes"] for entry in shards),
        "quarantined": len(refused),
        "plan": job.plan,
        "resolution": job.settings.resolution.to_dict(),
        "precision": job.settings.precision,
        "shards": shards,
    }
    write_text(job.out, INDEX, json.dumps(index, indent=1) + "\n")
    return Built(rows=index["rows"], bytes=index["bytes"], shards=len(shards), quarantined=len(refused))


@contextmanager
def alone(out: str) -> Iterator[None]:
    """One build at a time in a local folder.

    Raises:
        BadSample: another process is building there.
    """
    if is_url(out):
        yield
        return
    with one_writer(local_path(out) / ".lock"):
        yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="medvlm data shard", description=__doc__)
    parser.add_argument("manifests", type=Path, nargs="+", metavar="MANIFEST", help="JSONL, all of one split")
    parser.add_argument("--out", required=True, help="folder, or a url that fsspec writes to (s3://bucket/set)")
    parser.add_argument("--root", type=Path, help="where relative paths start from (default: the manifest's folder)")
    parser.add_argument(
        "--size",
        nargs="+",
        default=[],
        metavar="SIZE",
        help="source (bytes as they are), or at most: image=SIDE, volume=DxHxW or AxBxCmm, video=FRAMES[xSIDE]; a kind "
        "that is not named stays as it is",
    )
    parser.add_argument("--max-pixels", type=int, help="most pixels of an image, and of a frame of a video")
    parser.add_argument(
        "--precision",
        choices=("exact", "rounded"),
        default="exact",
        help="exact: float32 where values are not whole; rounded: 1/255 of display values, whole HU, 65536 levels else",
    )
    parser.add_argument("--shard-mb", type=float, default=256.0, help="about so many million bytes in a shard")
    parser.add_argument("--rows-per-shard", type=int, help="exactly so many rows instead")
    parser.add_argument("--seed", type=int, default=0, help="of the order of rows")
    parser.add_argument("--keep-order", action="store_true", help="rows in the order of the manifests")
    parser.add_argument("--workers", type=int, default=1, help="processes, or tasks of Ray at once")
    parser.add_argument("--engine", choices=("processes", "ray"), default="processes")
    parser.add_argument("--ray-address", help='of a running cluster, or "auto"; a local one is started otherwise')
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 all rows are in, 1 some are quarantined or it was stopped, 2 refused."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.workers < 1 or given.shard_mb <= 0 or (given.rows_per_shard or 1) < 1:
        parser.error("--workers, --shard-mb and --rows-per-shard must be positive")
    folders = {path.resolve().parent for path in given.manifests}
    if given.root is None and len(folders) > 1:
        parser.error("the manifests lie in several folders; say with --root where their paths start from")
    out = given.out if is_url(given.out) else str(local_path(given.out).resolve())
    began = time.monotonic()
    try:
        resolution = parse_resolution(given.size, given.max_pixels)
        manifests = tuple(ManifestRows(path) for path in given.manifests)
        settings = Settings(
            root=(given.root or next(iter(folders))).resolve(), resolution=resolution, precision=given.precision
        )
        engine: Engine = run_processes
        if given.engine == "ray":
            from medvlm.data_recipes.shards.ray_engine import ray_engine

            engine = ray_engine(given.ray_address)
        with alone(out):
            prepare(out)
            job = make_job(
                manifests,
                out,
                settings,
                seed=None if given.keep_order else given.seed,
                rows_per_shard=given.rows_per_shard,
                shard_mb=given.shard_mb,
            )
            built = build(job, engine, workers=given.workers, progress=True)
    except (ValueError, BadSample, ImportError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it stopped", file=sys.stderr)
        return 1
    except (OSError, BrokenExecutor) as error:
        # A full disk, a storage that does not answer, a worker that the system has ended for want of memory.
        print(f"stopped by {type(error).__name__}: {error}; the same command goes on where it stopped", file=sys.stderr)
        return 1
    seconds = time.monotonic() - began
    print(
        f"{built.rows} rows in {built.shards} shards, {built.bytes / 1e6:.1f} MB, at {out}: "
        f"{built.rows / seconds:.1f} rows/s, {built.bytes / 1e6 / seconds:.1f} MB/s"
    )
    if built.quarantined:
        print(f"{built.quarantined} rows are quarantined: {join(out, QUARANTINE)} says why", file=sys.stderr)
    return 1 if built.quarantined else 0


if __name__ == "__main__":
    raise SystemExit(main())
