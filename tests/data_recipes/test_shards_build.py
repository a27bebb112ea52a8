"""Shards have the same bytes whoever writes them; a killed build loses nothing and leaves nothing torn."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest
from launching import FULL
from shard_sources import mixed_set, picture_set, row, write_rows

from medvlm.data_recipes.sample import Sample, read_jsonl
from medvlm.data_recipes.shards import shard
from medvlm.data_recipes.shards.build import build_shard
from medvlm.data_recipes.shards.reader import ShardSet, is_shard_set
from medvlm.data_recipes.shards.shard import alone, main


def sums(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir()) if p.name != ".lock"}


def command(source: Path, out: Path, *more: str) -> list[str]:
    return [str(source), "--out", str(out), "--size", "image=48", "--rows-per-shard", "5", *more]


def test_same_bytes_in_whatever_order_shards_are_made(tmp_path, monkeypatch):
    source = mixed_set(tmp_path / "source")

    def backwards(job, numbers, workers):
        yield from (build_shard(job, number) for number in reversed(numbers))

    assert main(command(source, tmp_path / "forwards")) == 1
    monkeypatch.setattr(shard, "run_processes", backwards)
    assert main(command(source, tmp_path / "backwards")) == 1
    assert sums(tmp_path / "forwards") == sums(tmp_path / "backwards")


@pytest.mark.slow
def test_same_bytes_for_any_number_of_workers(tmp_path):
    source = mixed_set(tmp_path / "source")
    numbers = (1, 2, 3) if FULL else (1, 3)
    for workers in numbers:
        assert main(command(source, tmp_path / f"by-{workers}", "--workers", str(workers))) == 1
    one = sums(tmp_path / "by-1")
    assert len(one) == 4 * 2 + 3 and {"index.json", "plan.json", "quarantine.jsonl"} < set(one)
    for workers in numbers[1:]:
        assert sums(tmp_path / f"by-{workers}") == one


def test_seed_and_order_of_rows(tmp_path):
    source = picture_set(tmp_path / "source", 12)
    wanted = [one.sample_id for one in read_jsonl(source) if isinstance(one, Sample)]
    found = {}
    for name, more in {"kept": ["--keep-order"], "zero": [], "one": ["--seed", "1"]}.items():
        assert main(command(source, tmp_path / name, *more)) == 0
        shards = ShardSet.open(tmp_path / name)
        found[name] = [shards.row(index).sample_id for index in range(len(shards))]
    assert found["kept"] == wanted
    assert found["zero"] != wanted != found["one"] != found["zero"]
    assert sorted(found["zero"]) == sorted(found["one"]) == sorted(wanted)


def test_size_of_shards_is_met_about(tmp_path):
    source = picture_set(tmp_path / "source", 40)
    assert main([str(source), "--out", str(tmp_path / "out"), "--size", "source", "--shard-mb", "0.06"]) == 0
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert plan["layout"]["rows_per_shard"] == 9  # 5 kB and three blocks of 512 bytes each
    assert 50_000 < (tmp_path / "out" / "train-00000.tar").stat().st_size < 70_000
    before = sums(tmp_path / "out")
    assert main([str(source), "--out", str(tmp_path / "out"), "--size", "source", "--shard-mb", "0.06"]) == 0
    assert sums(tmp_path / "out") == before


def test_tars_hold_nothing_of_this_machine(tmp_path):
    source = picture_set(tmp_path / "source", 3)
    main(command(source, tmp_path / "out"))
    with tarfile.open(tmp_path / "out" / "train-00000.tar") as tar:
        for info in tar:
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) == (0, 0, 0, "", "", 0o644)


def test_another_plan_is_refused_and_the_same_goes_on(tmp_path, capsys):
    source = picture_set(tmp_path / "source", 12)
    assert main(command(source, tmp_path / "out")) == 0
    before = sums(tmp_path / "out")
    with pytest.raises(SystemExit) as stop:
        main([str(source), "--out", str(tmp_path / "out"), "--size", "image=40", "--rows-per-shard", "5"])
    assert stop.value.code == 2 and "another plan (resolution differ)" in capsys.readouterr().err
    source.write_text(source.read_text() + json.dumps(row(99, [])) + "\n")
    with pytest.raises(SystemExit):
        main(command(source, tmp_path / "out"))
    assert sums(tmp_path / "out") == before


def test_finished_shards_are_checked_and_only_damaged_ones_are_written_again(tmp_path):
    source, out = picture_set(tmp_path / "source", 20), tmp_path / "out"
    assert main(command(source, out)) == 0
    before, times = sums(out), {p.name: p.stat().st_mtime_ns for p in out.glob("*.tar")}
    data = bytearray((out / "train-00001.tar").read_bytes())
    data[2000] ^= 1
    (out / "train-00001.tar").write_bytes(data)
    (out / "train-00002.index.json").write_text("{")
    (out / "train-00003.tar").unlink()
    (out / "index.json").unlink()
    (out / ".train-00000.tar.abc.partial").write_text("left by a killed run")
    assert not is_shard_set(out)
    assert main(command(source, out)) == 0
    assert sums(out) == before and is_shard_set(out)
    assert (out / "train-00000.tar").stat().st_mtime_ns == times["train-00000.tar"]
    assert all((out / f"train-0000{n}.tar").stat().st_mtime_ns != times[f"train-0000{n}.tar"] for n in (1, 2, 3))


def test_rows_of_several_splits(tmp_path, capsys):
    train = write_rows(tmp_path / "train.jsonl", [row(0, []), row(1, [], split="validation"), row(2, [])])
    assert main([str(train), "--out", str(tmp_path / "out"), "--size", "source"]) == 1
    bad = json.loads((tmp_path / "out" / "quarantine.jsonl").read_text())
    assert "split 'validation' among rows of 'train'" in bad["reason"] and bad["sample_id"] == "s/1"
    other = write_rows(tmp_path / "test.jsonl", [row(3, [], split="test")])
    with pytest.raises(SystemExit) as stop:
        main([str(train), str(other), "--out", str(tmp_path / "both"), "--size", "source"])
    assert stop.value.code == 2 and "make one shard set for each split" in capsys.readouterr().err


def test_what_cannot_begin_is_refused_with_a_message(tmp_path, capsys):
    source = picture_set(tmp_path / "source", 2)
    empty = write_rows(tmp_path / "empty.jsonl", [])
    for arguments, said in (
        ([str(source), "--out", str(tmp_path / "o")], "say at which size"),
        ([str(tmp_path / "no.jsonl"), "--out", str(tmp_path / "o"), "--size", "source"], "no such manifest"),
        ([str(empty), "--out", str(tmp_path / "o"), "--size", "source"], "no row of the manifests"),
        ([str(source), str(empty), "--out", str(tmp_path / "o"), "--size", "source"], "--root"),
        (command(source, tmp_path / "o", "--workers", "0"), "must be positive"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2 and said in capsys.readouterr().err
    with alone(str(tmp_path / "busy")), pytest.raises(SystemExit):
        main(command(source, tmp_path / "busy"))
    assert "another process is writing" in capsys.readouterr().err


def start(arguments: list[str]) -> subprocess.Popen:
    """The command in its own process group, as a shell starts it."""
    code = [sys.executable, "-m", "medvlm.data_recipes.shards.shard", *arguments]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(code, start_new_session=True, env=environment, **quiet)


def wait_for_shards(out: Path, count: int, running: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while len(list(out.glob("train-*.tar"))) < count and running() and time.monotonic() < end:
        time.sleep(0.002)


def assert_nothing_torn(out: Path, wanted: dict[str, str]) -> int:
    """Every shard and record under its final name is whole; returns how many shards there are."""
    found = [path for path in out.iterdir() if not path.name.startswith(".")]
    for path in found:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == wanted[path.name], path.name
    return sum(path.suffix == ".tar" for path in found)


def test_kill_9_at_any_moment_loses_only_the_shard_at_work(tmp_path):
    source = picture_set(tmp_path / "source", 60, size=(150, 200))
    arguments = [str(source), "--size", "image=120", "--rows-per-shard", "3"]
    assert main([*arguments, "--out", str(tmp_path / "whole")]) == 0
    wanted, rng, out = sums(tmp_path / "whole"), random.Random(0), tmp_path / "killed"
    before = kills = partial = 0
    for _ in range(12):
        # Forked, because importing everything anew would take longer than the build.
        process = get_context("fork").Process(target=main, args=([*arguments, "--out", str(out)],))
        process.start()
        wait_for_shards(out, before + 1, process.is_alive)
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        partial += bool(list(out.glob(".*.partial")))
        now = assert_nothing_torn(out, wanted)
        assert now >= before
        before = now
    assert kills >= 6 and partial >= 1 and before > 3
    assert main([*arguments, "--out", str(out)]) == 0
    assert sums(out) == wanted and not list(out.glob(".*.partial"))


@pytest.mark.slow
def test_a_tree_of_processes_is_killed_and_stopped_and_the_same_command_goes_on(tmp_path):
    source = picture_set(tmp_path / "source", 400, size=(150, 200))
    arguments = [str(source), "--size", "image=120", "--rows-per-shard", "4"]
    assert main([*arguments, "--out", str(tmp_path / "whole")]) == 0
    wanted, out, before = sums(tmp_path / "whole"), tmp_path / "out", 0

    def kill_parent(process: subprocess.Popen) -> None:
        process.kill()  # its workers must end by themselves

    def kill_all(process: subprocess.Popen) -> None:
        os.killpg(process.pid, signal.SIGKILL)

    def ctrl_c(process: subprocess.Popen) -> None:
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to every process

    for end, code in ((kill_parent, -signal.SIGKILL), (kill_all, -signal.SIGKILL), (ctrl_c, 1)):
        process = start([*arguments, "--out", str(out), "--workers", "2"])
        wait_for_shards(out, before + 3, lambda running=process: running.poll() is None)
        end(process)
        _, said = process.communicate(timeout=120)  # its pipes close when the last worker is gone
        assert process.returncode == code, said
        now = assert_nothing_torn(out, wanted)
        assert before < now < 100 and not is_shard_set(out)
        before = now
    assert "the same command goes on" in said and "Traceback" not in said and not list(out.glob(".*.partial"))
    assert main([*arguments, "--out", str(out)]) == 0
    assert sums(out) == wanted
