"""A real local Ray of two workers writes the same bytes as this process alone."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from shard_sources import mixed_set

from medvlm.data_recipes.shards.shard import main

pytest.importorskip("ray.data", reason="the ray extra is not installed", exc_type=ImportError)


def sums(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir()) if p.name != ".lock"}


@pytest.mark.slow
def test_ray_writes_the_same_bytes_and_goes_on(tmp_path):
    source = mixed_set(tmp_path / "source")
    arguments = [str(source), "--size", "image=48", "--rows-per-shard", "3"]
    ray = ["--engine", "ray", "--workers", "2"]
    assert main([*arguments, "--out", str(tmp_path / "alone")]) == 1
    wanted = sums(tmp_path / "alone")
    out = tmp_path / "ray"
    assert main([*arguments, "--out", str(out), *ray]) == 1
    assert sums(out) == wanted and len(list(out.glob("*.tar"))) == 6
    kept = (out / "train-00001.tar").stat().st_mtime_ns
    (out / "train-00000.tar").unlink()
    (out / "index.json").unlink()
    assert main([*arguments, "--out", str(out), *ray]) == 1
    assert sums(out) == wanted and (out / "train-00001.tar").stat().st_mtime_ns == kept
