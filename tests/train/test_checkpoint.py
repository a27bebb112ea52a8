"""Saved states are whole or absent (also after kill -9), found by their manifest, refused where they do not belong."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from medvlm.train.checkpoint import (
    CONVERTED,
    MANIFEST,
    Checkpoint,
    begin_folder,
    changed_file,
    check_belongs,
    commit_state,
    read_state,
    remove_old,
    set_damaged_aside,
    state_folder,
    state_folders,
    write_folder,
)

PRINTS = {"configuration": "aaa", "data": "bbb"}


def save(folder, step, *, keep=2, keep_every=None, text=None):
    target = state_folder(folder, step)
    path = begin_folder(target)
    (path / "inner").mkdir()
    (path / "inner" / "weights.bin").write_bytes((text or f"weights {step}").encode() * 100)
    (path / "rank.txt").write_text("rank 0")
    commit_state(path, target, step=step, fingerprints=PRINTS, metadata={"cursor": [step, 3]})
    remove_old(folder, keep, keep_every)
    return target


def newest(folder) -> Checkpoint:
    found = read_state(state_folders(folder)[0])
    assert isinstance(found, Checkpoint), found
    return found


def test_the_newest_is_found_with_what_was_saved_beside_it(tmp_path):
    assert state_folders(tmp_path / "nothing") == []
    save(tmp_path, 9, keep=3)
    save(tmp_path, 10, keep=3)
    save(tmp_path, 100_000_000, keep=3)  # one digit more than the names are padded to
    found = newest(tmp_path)
    assert found.step == 100_000_000
    assert found.metadata == {"cursor": [100_000_000, 3]}
    assert (found.path / "inner" / "weights.bin").read_bytes().startswith(b"weights 100000000")
    check_belongs(found, PRINTS)
    assert changed_file(found) is None


def test_only_the_newest_are_kept(tmp_path):
    for step in (5, 10, 15, 20):
        save(tmp_path, step, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000015", "step-00000020"]


def test_every_so_many_steps_a_state_stays(tmp_path):
    for step in (5, 10, 15, 20, 25):
        save(tmp_path, step, keep=1, keep_every=10)
        (tmp_path / f"step-{step:08d}.universal").mkdir()
    save(tmp_path, 30, keep=1, keep_every=10)
    names = sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".universal")
    assert names == ["step-00000010", "step-00000020", "step-00000025", "step-00000030"]
    converted = sorted(p.stem for p in tmp_path.iterdir() if p.suffix == ".universal")
    assert converted == names[:3], "what was made from a state goes with it"


def test_the_same_step_is_replaced_whole(tmp_path):
    save(tmp_path, 5, text="old")
    path = save(tmp_path, 5, text="new")
    assert (path / "inner" / "weights.bin").read_bytes() == b"new" * 100
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000005"]


def test_what_was_made_from_a_state_does_not_outlive_its_replacement(tmp_path):
    """Set aside as damaged and saved again, a state would else be loaded as it was, by another number of processes."""
    path = save(tmp_path, 5, text="old")
    converted = path.with_name(path.name + CONVERTED)
    converted.mkdir()
    set_damaged_aside(path)
    save(tmp_path, 5, text="new")
    assert not converted.exists()


@pytest.mark.parametrize("damage", ["no manifest", "half a manifest", "another manifest", "missing", "short"])
def test_an_incomplete_state_is_told_with_its_file(tmp_path, damage):
    path = save(tmp_path, 10)
    file = path / "inner" / "weights.bin"
    manifest = path / MANIFEST
    match damage:
        case "no manifest":
            manifest.unlink()
        case "half a manifest":
            manifest.write_text(manifest.read_text()[:100])
        case "another manifest":
            manifest.write_text("{}")
        case "missing":
            file.unlink()
        case "short":
            file.write_bytes(b"x")
    said = read_state(path)
    assert isinstance(said, str)
    assert str(path if damage == "no manifest" else manifest if "manifest" in damage else file) in said


def test_one_flipped_bit_is_found_by_whoever_reads_that_file(tmp_path):
    path = save(tmp_path, 5)
    file = path / "inner" / "weights.bin"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    found = newest(tmp_path)  # sizes agree
    expected = f"{file} has changed since it was written"
    assert changed_file(found) == expected
    assert [changed_file(found, part=part, parts=2) for part in range(2)] == [expected, None]


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
    with pytest.raises(ValueError, match=named):
        check_belongs(newest(tmp_path), now)


def test_a_failing_writer_leaves_the_old_folder(tmp_path):
    write_folder(tmp_path / "model", lambda path: (path / "a").write_text("1"))

    def fail(path):
        (path / "a").write_text("2")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_folder(tmp_path / "model", fail)
    assert (tmp_path / "model" / "a").read_text() == "1"


WRITER = """
import sys
from pathlib import Path
from medvlm.train.checkpoint import begin_folder, commit_state, remove_old, state_folder

step = 0
while True:
    step += 1
    target = state_folder(Path(sys.argv[1]), step)
    path = begin_folder(target)
    for number in range(40):
        (path / f"part-{number}").write_bytes(bytes(200_000))
    commit_state(path, target, step=step, fingerprints={}, metadata={})
    remove_old(Path(sys.argv[1]), 1)
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
        assert changed_file(newest(folder)) is None
    assert seen_unfinished, "no kill fell into a save: the test proved nothing"
