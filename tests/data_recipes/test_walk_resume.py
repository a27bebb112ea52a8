"""A walk (and a build) that is stopped goes on; the rows of a dataset are never held together."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from own_fixtures import picture, recipe
from PIL import Image

from medvlm.data_recipes import walk
from medvlm.data_recipes.read_once import COMMIT_EVERY
from medvlm.data_recipes.walk_result import read_walk

PICTURES = 100
KILLED_AT = COMMIT_EVERY + 6
DIES = f"""
import os, signal
from medvlm.data_recipes import read_once, walk
decode, count = read_once.decode, 0

def dies(ref):
    global count
    count += 1
    if count == {KILLED_AT}:
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(ref)

read_once.decode = dies
walk.main([{{folder!r}}, "--out", {{out!r}}])
"""
PEAK = """
import resource, sys
from medvlm.data_recipes import walk
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
walk.main([sys.argv[1], "--out", sys.argv[2]])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def medqa(path: Path, rows: int, words: int) -> None:
    """The table of one split in the published layout."""
    options = {letter: f"plan {letter}" for letter in "ABCD"}
    with path.open("w") as file:
        for number in range(rows):
            question = f"Synthetic case {number}. " + "It is long. " * words
            row = {"question": question, "answer": "plan B", "options": options, "answer_idx": "B"}
            file.write(json.dumps({**row, "meta_info": "step1"}) + "\n")


def clinic(root: Path) -> Path:
    """VQA-RAD with questions of 100 pictures, some of them public test questions, and loose copies of a few."""
    common = {"image_organ": "CHEST", "question_type": "PRES", "answer_type": "CLOSED", "answer": "yes"}
    folder = root / "published" / "VQA_RAD Image Folder"
    rows = []
    for number in range(PICTURES):
        picture(folder / f"{number}.jpg", number)
        kind = "test_freeform" if number % 5 == 0 else "freeform"
        asked = {"image_name": f"{number}.jpg", "question": "Any nodule ?"}
        rows.append({**common, **asked, "qid": 2 * number, "phrase_type": kind})
        rows.append({**common, **asked, "qid": 2 * number + 1, "phrase_type": "freeform", "question": "any nodule?"})
    (folder.parent / "VQA_RAD Dataset Public.json").write_text(json.dumps(rows))
    for number in (3, 5, 99):
        (root / "loose").mkdir(exist_ok=True)
        shutil.copy(folder / f"{number}.jpg", root / "loose" / f"{number}.jpg")
    return root


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if not path.name.startswith(".")}


def known(memory: Path) -> list[str]:
    """The paths that have been read; empty while there is no database."""
    if not memory.is_file():
        return []
    data = sqlite3.connect(f"file:{memory}?mode=ro", uri=True)
    try:
        return [key.split("\n")[1] for (key,) in data.execute("SELECT key FROM visuals")]
    except sqlite3.OperationalError:  # not made yet, or being written
        return []
    finally:
        data.close()


def test_a_killed_walk_goes_on_with_the_same_bytes_and_reads_nothing_again(tmp_path: Path) -> None:
    folder, out = clinic(tmp_path / "clinic"), tmp_path / "out"
    walk.walk_into(folder, tmp_path / "whole")
    child = subprocess.run([sys.executable, "-c", DIES.format(folder=str(folder), out=str(out))], check=False)
    assert child.returncode == -signal.SIGKILL and "summary.json" not in files(out)
    read = known(out / walk.MEMORY)
    assert len(read) == COMMIT_EVERY
    for path in map(Path, read):
        # Other bytes of the same size and time cannot be seen: reading them again would refuse them. The start stays,
        # because loose files, which are read first, are told by it.
        stat = path.stat()
        path.write_bytes(path.read_bytes()[:4] + bytes(stat.st_size - 4))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert walk.main([str(folder), "--out", str(out)]) == 0
    assert files(out) == files(tmp_path / "whole")
    assert not [path for path in out.iterdir() if path.name.endswith(".part")]
    refused = read_walk(out).quarantine
    assert len(refused) == PICTURES // 5 and all("public test row" in bad.reason for bad in refused)


def test_a_walk_that_was_done_is_done_again_from_memory(tmp_path: Path) -> None:
    """Both ways of learning, in the first or in a second pass over the datasets, give the same."""
    folder, out = clinic(tmp_path / "clinic"), tmp_path / "clinic" / "out"
    walk.walk_into(folder, out)
    first = files(out)
    walk.walk_into(folder, out)
    assert files(out) == first and read_walk(out).counts["other_files"] == 0


def test_a_long_table_takes_the_memory_of_a_short_one(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    medqa(tmp_path / "in" / "phrases_no_exclude_train.jsonl", 12_000, 220)
    told = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "in"), str(tmp_path / "out")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    grown_mib = float(told.stdout.split()[-1])
    size_mib = (tmp_path / "in" / "phrases_no_exclude_train.jsonl").stat().st_size / 2**20
    assert size_mib > 30 and read_walk(tmp_path / "out").counts["samples"] == 12_000
    assert grown_mib < 24, f"{grown_mib} MiB for a table of {size_mib:.0f} MiB"


def slow_folder(root: Path, pictures: int = 800) -> Path:
    """Copies of one picture that takes some milliseconds to read."""
    (root / "images").mkdir(parents=True)
    first = root / "images" / "0.png"
    Image.fromarray(np.tile(np.arange(1200, dtype=np.uint16).astype(np.uint8), (1200, 1))).save(first)
    for number in range(1, pictures):
        os.link(first, root / "images" / f"{number}.png")
    return root


def walk_command(root: Path) -> tuple[list[str], Path]:
    out = root.parent / "out"
    return ["-m", "medvlm.data_recipes.walk", str(root), "--out", str(out), "--workers", "2"], out


def build_command(root: Path) -> tuple[list[str], Path]:
    names = [f"{number}.png" for number in range(800)]
    (root / "rows.csv").write_text("file,answer\n" + "".join(f"{name},{name}\n" for name in names))
    filled = recipe(
        root, format="table", paths=["rows.csv"], images="images", fields={"visuals": ["file"]},
        ask=[{"answer": "answer", "prompt": "What is it?", "kind": "vqa"}],
    )  # fmt: skip
    out = root.parent / "out"
    return ["-m", "medvlm.data_recipes.own.build", str(filled), "--out", str(out), "--workers", "2"], out


def started(arguments: list[str], out: Path) -> subprocess.Popen[str]:
    """A process group of its own, as a terminal makes, that has begun to read."""
    child = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    end = time.monotonic() + 60
    while not known(out / walk.MEMORY) and child.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert child.poll() is None, child.communicate()
    return child


@pytest.mark.slow
@pytest.mark.parametrize("command", [walk_command, build_command])
def test_ctrl_c_says_in_one_line_how_to_go_on(command, tmp_path: Path) -> None:
    arguments, out = command(slow_folder(tmp_path / "in"))
    child = started(arguments, out)
    os.killpg(child.pid, signal.SIGINT)
    said, told = child.communicate(timeout=60)
    assert child.returncode == 1 and said == ""
    assert told == "Stopped; no manifest was changed. The same command goes on: what was read is not read again.\n"
    assert [path.name for path in out.iterdir()] == [walk.MEMORY]
    assert 0 < len(known(out / walk.MEMORY)) < 800


@pytest.mark.slow
def test_no_worker_outlives_a_killed_walk(tmp_path: Path) -> None:
    arguments, out = walk_command(slow_folder(tmp_path / "in"))
    child = started(arguments, out)
    child.kill()
    child.communicate(timeout=60)  # ends when the last process that holds its standard error has ended
    with pytest.raises(ProcessLookupError):
        for _ in range(500):
            os.killpg(child.pid, 0)
            time.sleep(0.02)
