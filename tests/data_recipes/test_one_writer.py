"""Two runs into one folder: the second is refused and the first is not disturbed."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
from checked_set import clean_rows, pattern, save_png, write_rows

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.one_writer import one_writer
from medvlm.scripts.cli import main


def test_the_second_is_refused_and_nothing_stays_behind(tmp_path):
    lock = tmp_path / "out" / ".lock"
    with one_writer(lock):
        with pytest.raises(BadSample, match=r"another process is writing there\. Mend: wait"), one_writer(lock):
            pass
        assert lock.exists()
    assert not lock.exists()
    lock.touch()  # of a killed process: nobody holds it
    with one_writer(lock):
        pass
    with pytest.raises(KeyError), one_writer(lock):
        raise KeyError
    assert list(lock.parent.iterdir()) == []


def _count(folder: Path, times: int) -> None:
    done = 0
    while done < times:
        try:
            with one_writer(folder / ".lock"):
                number = int((folder / "number").read_text())
                (folder / "number").write_text(str(number + 1))
                done += 1
        except BadSample:
            pass


@pytest.mark.slow
def test_no_two_hold_it_at_once(tmp_path):
    (tmp_path / "number").write_text("0")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_count, args=(tmp_path, 300)) for _ in range(3)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    assert (tmp_path / "number").read_text() == "900"


def test_every_command_that_writes_a_folder_refuses_a_second_run(tmp_path, capsys):
    root, out = tmp_path / "data", tmp_path / "out"
    write_rows(root, clean_rows(root, visuals=12, rows=30))
    save_png(root / "a.png", pattern(1))
    (root / "rows.csv").write_text("file,answer\na.png,yes\n")
    (tmp_path / "recipe.yaml").write_text(
        "name: mine\nformat: table\nlicence: own\npatient: {row: true}\nsplit: {all: train}\npaths: [data/rows.csv]\n"
        "images: data\nfields: {visuals: [file]}\nask: [{answer: answer, prompt: 'Is there a nodule?'}]\n"
    )
    (tmp_path / "key").write_text(json.dumps("0123456789abcdef" * 4))
    commands = {
        "build": ([str(tmp_path / "recipe.yaml"), "--out", str(out)], out / ".lock"),
        "walk": ([str(root), "--out", str(out)], out / ".lock"),
        "check": ([str(root / "train.jsonl"), "--out", str(out)], out / ".lock"),
        "deidentify": (
            [str(root), "--out", str(out), "--key", str(tmp_path / "key")],
            out / "deidentification" / ".lock",
        ),
        "pairs": ([str(root / "train.jsonl"), "--out", str(out / "p.jsonl"), "--quiet"], out / ".p.jsonl.lock"),
        "shard": ([str(root / "train.jsonl"), "--out", str(out), "--size", "source"], out / ".lock"),
    }
    for name, (words, lock) in commands.items():
        with one_writer(lock):
            try:
                code = main(["data", name, *words])
            except SystemExit as stopped:
                code = stopped.code
        assert code == 2 and "another process is writing there" in capsys.readouterr().err, name
        assert [path for path in out.rglob("*") if path.is_file()] == [], name
