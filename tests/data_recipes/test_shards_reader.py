"""Rows by number and as a stream: damage is found where it is, memory is bounded, every rank's rows are its own."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from shard_sources import picture_set

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.shards import byte_ranges
from medvlm.data_recipes.shards.order import StreamOrder
from medvlm.data_recipes.shards.reader import ShardSet, is_shard_set
from medvlm.data_recipes.shards.shard import main
from medvlm.data_recipes.shards.stream import stream


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """30 rows in 6 shards."""
    folder = tmp_path_factory.mktemp("shards")
    source = picture_set(folder / "source", 30)
    assert main([str(source), "--out", str(folder / "set"), "--size", "image=40", "--rows-per-shard", "5"]) == 0
    shutil.rmtree(folder / "source")  # nothing is read from it again
    return folder / "set"


@pytest.fixture
def shards(built, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(built, tmp_path / "set"))


def look(sample: Sample | BadSample) -> str:
    """What reading a row and its visuals gives: the sample's id, or what is wrong."""
    if isinstance(sample, BadSample):
        return sample.where
    try:
        for ref in sample.visuals():
            read(ref, Path("/"))
    except BadSample as bad:
        return bad.where
    return sample.sample_id


def test_rows_by_number(built):
    rows = ShardSet.open(built)
    assert len(rows) == 30 and rows.split == "train" and len(rows.fingerprint) == 64
    assert len({look(rows.row(index)) for index in range(30)}) == 30
    for wrong in (-1, 30):
        with pytest.raises(IndexError):
            rows.row(wrong)
    again = pickle.loads(pickle.dumps(rows))
    assert again.row(7) == rows.row(7) and again.fingerprint == rows.fingerprint
    assert ShardSet.open(f"file://{built}").row(3) == rows.row(3)


def test_what_is_a_set(built, tmp_path):
    assert is_shard_set(built) and is_shard_set(str(built))
    assert (
        not is_shard_set(tmp_path) and not is_shard_set(tmp_path / "train.jsonl") and not is_shard_set(tmp_path / "no")
    )
    (tmp_path / "index.json").write_text('{"format": "other"}')
    assert not is_shard_set(tmp_path)
    with pytest.raises(BadSample, match="no index of a shard set"):
        ShardSet.open(tmp_path)
    with pytest.raises(BadSample, match="not finished"):
        ShardSet.open(tmp_path / "no")


def test_fingerprint_tells_content(shards):
    before = ShardSet.open(shards).fingerprint
    index = json.loads((shards / "index.json").read_text())
    index["shards"][0]["sha256"] = "0" * 64
    (shards / "index.json").write_text(json.dumps(index))
    assert ShardSet.open(shards).fingerprint != before


def outcomes(folder: Path) -> tuple[list[str], list[str]]:
    """(by number, by stream): what each row gives, in the order of the rows' numbers."""
    rows = ShardSet.open(folder)
    by_number = [look(rows.row(index)) for index in range(len(rows))]
    return by_number, sorted(look(row) for _, row in stream(rows))


def test_one_changed_byte_costs_one_row(built, shards):
    rows = ShardSet.open(shards)
    ref = rows.row(12).visuals()[0]
    data = bytearray(Path(ref.path).read_bytes())
    data[ref.options["offset"] + 700] ^= 1
    Path(ref.path).write_bytes(data)
    good, (found, streamed) = outcomes(built)[0], outcomes(shards)
    where = f"{shards / 'train-00002.tar'}::{ref.options['member']}"
    assert found == [*good[:12], where, *good[13:]]
    assert streamed == sorted(found)
    with pytest.raises(BadSample, match="have changed since the shard was built"):
        read(ref, Path("/"))


def test_a_changed_row_a_torn_shard_and_a_missing_one(built, shards):
    good = outcomes(built)[0]
    data = (shards / "train-00000.tar").read_bytes()
    (shards / "train-00000.tar").write_bytes(data.replace(b"answer", b"answir", 1))
    os.truncate(shards / "train-00001.tar", (shards / "train-00001.tar").stat().st_size // 2)
    (shards / "train-00003.tar").unlink()
    (shards / "train-00004.index.json").write_text("{}")
    (shards / "train-00005.index.json").unlink()
    found, streamed = outcomes(shards)
    assert streamed == sorted(found)
    assert found[0] == f"{shards / 'train-00000.tar'}::row 0" and found[1:5] == good[1:5]
    torn = [one for one in found[5:10] if one not in good]
    assert 2 <= len(torn) <= 3 and all("train-00001.tar" in one for one in torn)
    assert found[10:15] == good[10:15]
    assert all("train-00003.tar" in one for one in found[15:20])
    assert all("train-00004.index.json" in one for one in found[20:25])
    assert all("train-00005.index.json" in one for one in found[25:30])
    reasons = [ShardSet.open(shards).row(index) for index in (0, 15, 20, 25)]
    for row, said in zip(
        reasons, ("changed since", "no such shard", "has changed since the build", "missing"), strict=True
    ):
        assert isinstance(row, BadSample) and said in row.reason


def test_order_is_a_pure_function_and_two_one_two_ranks_see_each_row_once(built):
    rows = ShardSet.open(built)

    def places(**more) -> list[tuple[int, str]]:
        return [(at, row.sample_id) for at, row in stream(rows, seed=3, group=2, **more)]

    whole = places()
    assert [at for at, _ in whole] == list(range(30)) and len({name for _, name in whole}) == 30
    assert places() == whole and places(epoch=1) != whole and [n for _, n in whole] != sorted(n for _, n in whole)
    first = [places(rank=rank, world_size=2)[:4] for rank in (0, 1)]
    middle = places(start=8)[:9]
    last = [places(start=17, rank=rank, world_size=2) for rank in (0, 1)]
    assert sorted([*first[0], *first[1], *middle, *last[0], *last[1]]) == whole


def test_groups_mix_their_shards_only():
    order = StreamOrder(rows=(3, 4, 5, 6, 7), seed=1, group=2)
    groups = list(order.epoch(0))
    assert [len(members) for _, members, _ in groups] == [2, 2, 1]
    assert sorted(number for _, _, rows in groups for number in rows.tolist()) == list(range(25))
    first = [0, 3, 7, 12, 18]
    for _, members, rows in groups:
        assert set(rows.tolist()) == {first[m] + i for m in members for i in range(order.rows[m])}
    assert [place for place, _, _ in order.epoch(0, 8)] == [p for p, _, r in groups if p + len(r) > 8]


def test_few_files_are_open_at_once(built, monkeypatch):
    monkeypatch.setattr(byte_ranges, "OPEN_FILES", 3)
    byte_ranges._open.clear()  # what other tests have left
    rows = ShardSet.open(built)
    for index in [*range(0, 30, 5)] * 2:
        look(rows.row(index))
    links = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert 1 <= sum(name.startswith(str(built)) for name in links) <= 3


def test_memory_does_not_grow_with_the_set(tmp_path):
    def peak(count: int) -> int:
        source = picture_set(tmp_path / f"source-{count}", count, size=(200, 200))
        out = tmp_path / f"out-{count}"
        tracemalloc.start()
        assert main([str(source), "--out", str(out), "--size", "image=190", "--rows-per-shard", "8"]) == 0
        rows = ShardSet.open(out)
        for _, row in stream(rows):
            look(row)
        for index in range(count):
            look(rows.row(index))
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sum(shard["bytes"] for shard in rows.shards) > 140_000 * count
        return held

    small, large = peak(16), peak(96)  # 2.3 MB and 14 MB of shards
    assert large < small + 1_000_000


@pytest.mark.slow
def test_a_set_larger_than_the_bound_is_built_and_read_within_it(tmp_path):
    source = picture_set(tmp_path / "source", 200, size=(700, 700))
    code = f"""
import resource, sys
from pathlib import Path
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.shards.reader import ShardSet
from medvlm.data_recipes.shards.shard import main
from medvlm.data_recipes.shards.stream import stream
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
main([{str(source)!r}, "--out", {str(tmp_path / "out")!r}, "--size", "image=690", "--shard-mb", "40"])
rows = ShardSet.open({str(tmp_path / "out")!r})
for _, row in stream(rows):
    for ref in row.visuals():
        read(ref, Path("/"))
print(sum(s["bytes"] for s in rows.shards), peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    total, grown = map(int, done.stdout.split()[-2:])
    assert total > 350e6 and grown < 120e6
