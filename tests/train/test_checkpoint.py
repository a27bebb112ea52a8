"""Saved states are whole or absent (also after kill -9), found by their manifest, refused where they do not belong."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from medvlm.train.checkpoint import MANIFEST, check_checkpoint, latest_checkpoint, save_checkpoint, write_folder

PRINTS = {"configuration": "aaa", "data": "bbb"}


def save(folder, step, *, keep=2, text=None):
    def write(path):
        (path / "inner").mkdir()
        (path / "inner" / "weights.bin").write_bytes((text or f"weights {step}").encode() * 100)
        (path / "rank.txt").write_text("rank 0")

    return save_checkpoint(folder, step, write, fingerprints=PRINTS, metadata={"cursor": [step, 3]}, keep=keep)


def test_the_newest_is_found_with_what_was_saved_beside_it(tmp_path):
    assert latest_checkpoint(tmp_path / "nothing") is None
    save(tmp_path, 9, keep=3)
    save(tmp_path, 10, keep=3)
    save(tmp_path, 100_000_000, keep=3)  # one digit more than the names are padded to
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.step == 100_000_000
    assert found.metadata == {"cursor": [100_000_000, 3]}
    assert (found.path / "inner" / "weights.bin").read_bytes().startswith(b"weights 100000000")
    check_checkpoint(found, PRINTS)


def test_only_the_newest_are_kept(tmp_path):
    for step in (5, 10, 15, 20):
        save(tmp_path, step, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000015", "step-00000020"]


def test_the_same_step_is_replaced_whole(tmp_path):
    save(tmp_path, 5, text="old")
    path = save(tmp_path, 5, text="new")
    assert (path / "inner" / "weights.bin").read_bytes() == b"new" * 100
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000005"]


@pytest.mark.parametrize("damage", ["manifest", "missing", "short"])
def test_an_incomplete_state_is_passed_over_and_said(tmp_path, caplog, damage):
    save(tmp_path, 5)
    path = save(tmp_path, 10)
    target = path / MANIFEST if damage == "manifest" else path / "inner" / "weights.bin"
    if damage == "short":
        target.write_bytes(b"x")
    else:
        target.unlink()
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.step == 5
    assert str(target if damage != "manifest" else path) in caplog.text


def test_changed_contents_are_refused(tmp_path):
    path = save(tmp_path, 5)
    file = path / "inner" / "weights.bin"
    file.write_bytes(file.read_bytes().replace(b"w", b"W", 1))
    found = latest_checkpoint(tmp_path)
    assert found is not None  # sizes agree
    with pytest.raises(ValueError, match=r"weights\.bin has changed since it was written"):
        check_checkpoint(found, PRINTS)


@pytest.mark.parametrize(
    ("now", "named"),
    [
        ({"configuration": "aaa", "data": "other"}, "another data;"),
        ({"configuration": "other", "data": "bbb"}, "another configuration;"),
        ({"configuration": "other", "data": "other"}, "another configuration and data;"),
        ({"configuration": "aaa"}, "another data;"),
    ],
)
def test_another_training_is_refused_by_name(tmp_path, now, named):
    save(tmp_path, 5)
    found = latest_checkpoint(tmp_path)
    assert found is not None
    with pytest.raises(ValueError, match=named):
        check_checkpoint(found, now)


def test_a_failing_writer_leaves_the_old_folder(tmp_path):
    write_folder(tmp_path / "model", lambda path: (path / "a").write_text("1"))

    def fail(path):
        (path / "a").write_text("2")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_folder(tmp_path / "model", fail)
    assert (tmp_path / "model" / "a").read_text() == "1"


def test_ranks_write_into_one_folder_and_rank_0_publishes_it(tmp_path):
    """Two ranks in turn: rank 1's barriers fall where rank 0 is between the same barriers."""
    target, order = tmp_path / "model", []

    def barrier_of_rank_0():
        order.append(target.exists())
        if len(order) == 1:
            write_folder(target, lambda path: (path / "rank-1").write_text("1"), rank=1)

    write_folder(target, lambda path: (path / "rank-0").write_text("0"), barrier=barrier_of_rank_0)
    assert order == [False, False, True]
    assert sorted(p.name for p in target.iterdir()) == ["rank-0", "rank-1"]


WRITER = """
import sys
from pathlib import Path
from medvlm.train.checkpoint import save_checkpoint

def write(path):
    for number in range(40):
        (path / f"part-{number}").write_bytes(bytes(200_000))

step = 0
while True:
    step += 1
    save_checkpoint(Path(sys.argv[1]), step, write, fingerprints={}, metadata={}, keep=1)
    print(step, flush=True)
"""


def test_kill_9_while_saving_never_shows_half_a_state(tmp_path):
    seen_unfinished = 0
    for delay in (0.0, 0.003, 0.007, 0.012, 0.02, 0.03):
        folder = tmp_path / str(delay)
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "1"
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        visible = [p for p in folder.iterdir() if p.name[len("step-") :].isdigit()]
        seen_unfinished += len(list(folder.glob("*.unfinished")))
        whole = [p for p in visible if (p / MANIFEST).is_file()]
        assert whole, "no state survived"
        for path in whole:
            files = json.loads((path / MANIFEST).read_text())["files"]
            assert len(files) == 40
            assert all((path / name).stat().st_size == entry["bytes"] for name, entry in files.items())
        found = latest_checkpoint(folder)
        assert found is not None
        check_checkpoint(found, {})
    assert seen_unfinished, "no kill fell into a save: the test proved nothing"
