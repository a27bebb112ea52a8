"""Files, folders and outputs without permission: refused by name with an exit code, never a traceback or silence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checked_set import pattern, save_png

ROOT = os.geteuid() == 0
DROPPED = "-dac_override,-dac_read_search"

RUN = """
import contextlib, io, json, sys
from medvlm.scripts.cli import main

told = []
for words in json.loads(sys.argv[1]):
    said, wrong = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(wrong):
        try:
            code = main(words)
        except SystemExit as refused:
            code = refused.code
    told.append([code, said.getvalue(), wrong.getvalue()])
print(json.dumps(told))
"""


def unprivileged(commands: list[list[str]]) -> list[tuple[int, str, str]]:
    """(exit code, standard output, standard error) of commands of medvlm, run in one process that no right is given."""
    words = [sys.executable, "-c", RUN, json.dumps(commands)]
    if ROOT:
        words = ["setpriv", f"--bounding-set={DROPPED}", f"--inh-caps={DROPPED}", *words]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [tuple(one) for one in json.loads(done.stdout)]


@pytest.fixture
def home(tmp_path: Path):
    for number in range(3):
        save_png(tmp_path / "data" / "pictures" / f"{number}.png", pattern(number))
    rows = []
    for number in range(3):
        parts = [{"type": "image", "path": f"pictures/{number}.png"}, {"type": "text", "text": "Is there a nodule?"}]
        rows.append(
            {"sample_id": f"a/{number}", "patient_id": f"a/p{number}", "study_id": f"a/p{number}", "source": "a",
             "licence": "CC0-1.0", "split": "train",
             "messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "no"}]}
        )  # fmt: skip
    (tmp_path / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "key.txt").write_text("0123456789abcdef" * 4)
    lines = ["file,answer", *(f"{n}.png,yes" for n in range(3))]
    (tmp_path / "data" / "rows.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "recipe.yaml").write_text(
        "name: mine\nformat: table\nlicence: own\npatient: {row: true}\nsplit: {all: train}\npaths: [data/rows.csv]\n"
        "images: data/pictures\nfields: {visuals: [file]}\nask: [{answer: answer, prompt: 'Is there a nodule?'}]\n"
    )
    closed = tmp_path / "data" / "closed"
    closed.mkdir()
    (closed / "note.txt").write_text("Clear.")
    readonly = tmp_path / "readonly"
    readonly.mkdir()
    (tmp_path / "data" / "pictures" / "1.png").chmod(0)
    closed.chmod(0)
    readonly.chmod(0o555)
    yield tmp_path
    closed.chmod(0o755)
    readonly.chmod(0o755)


@pytest.mark.skipif(ROOT and shutil.which("setpriv") is None, reason="root reads everything, and setpriv is absent")
def test_what_cannot_be_read_or_written_is_told_with_the_right_exit_code(home):
    data, key = home / "data", str(home / "key.txt")
    commands = {
        "init of a closed folder": ["init", str(data / "closed"), "--out", str(home / "a.yaml")],
        "init beside a closed folder": ["init", str(data), "--out", str(home / "b.yaml")],
        "init into a read-only folder": ["init", str(data), "--out", str(home / "readonly" / "a.yaml")],
        "build": ["build", str(home / "recipe.yaml"), "--out", str(home / "built")],
        "build into a read-only folder": ["build", str(home / "recipe.yaml"), "--out", str(home / "readonly" / "b")],
        "check": ["check", str(data / "train.jsonl"), "--out", str(home / "checked")],
        "check into a read-only folder": ["check", str(data / "train.jsonl"), "--out", str(home / "readonly" / "c")],
        "deidentify": ["deidentify", str(data), "--out", str(home / "clean"), "--key", key],
        "deidentify into read-only": ["deidentify", str(data), "--out", str(home / "readonly/d"), "--key", key],
        "deidentify a closed folder": ["deidentify", str(data / "closed"), "--out", str(home / "none"), "--key", key],
    }  # fmt: skip
    told = dict(zip(commands, unprivileged([["data", *words] for words in commands.values()]), strict=True))
    codes = {name: code for name, (code, *_) in told.items()}
    refused = {name for name in commands if "read-only" in name} | {"init of a closed folder"}
    assert codes == {name: 2 if name in refused else 1 for name in commands}, told
    assert (
        f"{data / 'closed'}: the folder cannot be listed (Permission denied)" in told["init beside a closed folder"][2]
    )
    for name in refused:
        assert "Permission denied" in told[name][2] or "check its permissions" in told[name][2], told[name]
    (finding,) = map(json.loads, (home / "checked" / "findings.jsonl").read_text().splitlines())
    assert finding["where"] == f"{data / 'train.jsonl'}:2" and "1.png: cannot be read" in finding["reason"]
    assert len((home / "built" / "train.jsonl").read_text().splitlines()) == 2
    for out in ("clean", "none"):
        assert "a folder that cannot be listed" in (home / out / "deidentification" / "quarantine.jsonl").read_text()
    # The permission is mended: what was refused for want of it is read again, though the file is as old as it was.
    (data / "pictures" / "1.png").chmod(0o644)
    again = unprivileged([["data", *commands["check"]]])
    assert again[0][0] == 0, again
