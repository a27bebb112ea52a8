"""The whole check on 1,000 samples: each planted fault at its row by its own check, and nothing on the clean set."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checked_set import clean_rows, pattern, row_of, save_dicom, save_nifti, save_png, write_rows
from PIL import Image as Picture
from PIL import ImageEnhance
from pydicom.uid import generate_uid

from medvlm.data_recipes.checks.check import main

pytestmark = pytest.mark.slow


def check(folder: Path, *options: str) -> tuple[int, list[dict]]:
    """Exit code, and findings that are no notes."""
    code = main([str(folder), "--out", str(folder / "check"), *options])
    lines = (folder / "check" / "findings.jsonl").read_text().splitlines()
    return code, [row for row in map(json.loads, lines) if row["severity"] != "note"]


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> tuple[Path, list[dict]]:
    root = tmp_path_factory.mktemp("clean")
    rows = clean_rows(root)
    write_rows(root, rows)
    return root, rows


@pytest.fixture(scope="module")
def registered(tmp_path_factory) -> Path:
    """A public test set of 20 images that the data must not contain."""
    root = tmp_path_factory.mktemp("registered")
    rows = []
    for number in range(20):
        save_png(root / f"images/{number}.png", pattern(900 + number))
        visual = {"type": "image", "path": f"images/{number}.png"}
        rows.append(row_of(9000 + number, visual, "test", f"public{number}"))
    (root / "public.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root / "public.jsonl"


def test_nothing_is_found_on_the_clean_set(clean, registered):
    root, rows = clean
    assert len(rows) == 1000
    code, findings = check(root, "--augmentation", "hflip,rot90", "--against", str(registered))
    assert findings == []
    assert code == 0
    page = (root / "check" / "index.html").read_text()
    assert "No check found an error." in page
    summary = json.loads((root / "check" / "summary.json").read_text())
    assert summary["verdict"] == "pass" and summary["visuals"] == 420
    assert (root / "check" / "quarantine.jsonl").read_text() == ""


def answer(row: dict, text: str) -> None:
    row["messages"][-1]["content"] = [{"type": "text", "text": text}]


def plant(root: Path, rows: list[dict], registered: Path) -> dict[str, str]:
    """Twelve kinds of faults, each into a training row of its own; returns check -> sample_id."""
    visuals = {}
    for row in rows:
        if row["split"] == "train" and row["messages"][0]["content"][0]["type"] != "text":
            visuals.setdefault(row["messages"][0]["content"][0]["path"], []).append(row)
    pictures = iter([group[1] for path, group in visuals.items() if path.endswith(".png")][5:])
    dicoms = iter([group for path, group in visuals.items() if path.endswith(".dcm")])
    volumes = iter([group for path, group in visuals.items() if path.endswith(".nii")])
    series = iter([(path, group) for path, group in visuals.items() if "." not in path])
    texts = iter([row for row in rows if row["split"] == "train" and len(row["messages"][0]["content"]) == 1][3:])
    held = next(row for row in rows if row["split"] == "test" and row["messages"][0]["content"][0]["type"] == "image")

    def only(group: list[dict]) -> dict:
        """The first row of a visual; the others go, so that one row shows it."""
        for other in group[1:]:
            rows.remove(other)
        return group[0]

    planted = {}
    row = next(texts)
    row["patient_id"] = held["patient_id"]
    planted["patients"] = row["sample_id"]

    row = next(pictures)
    copy = Picture.open(root / held["messages"][0]["content"][0]["path"]).convert("L").resize((100, 100))
    buffer = io.BytesIO()
    ImageEnhance.Brightness(copy).enhance(1.1).save(buffer, "JPEG", quality=60)
    (root / "near.jpg").write_bytes(buffer.getvalue())
    row["messages"][0]["content"][0]["path"] = "near.jpg"
    planted["near_copies"] = row["sample_id"]

    row = next(pictures)
    shutil.copy(registered.parent / "images/7.png", root / "another_name.png")
    row["messages"][0]["content"][0]["path"] = "another_name.png"
    planted["test_set_images"] = row["sample_id"]

    row = next(texts)
    answer(row, "Patient: John Smith, MRN 48213377, was seen for a nodule.")
    planted["names_in_text"] = row["sample_id"]

    row = only(next(dicoms))
    path = root / row["messages"][0]["content"][0]["path"]
    save_dicom(path, pattern(777), series=generate_uid(), PatientName="Smith^John", PatientIdentityRemoved="NO")
    planted["names_in_tags"] = row["sample_id"]

    row = next(pictures)
    whole = (root / row["messages"][0]["content"][0]["path"]).read_bytes()
    (root / "torn.png").write_bytes(whole[: len(whole) // 2])
    row["messages"][0]["content"][0]["path"] = "torn.png"
    planted["files"] = row["sample_id"]

    path, group = next(series)
    row = only(group)
    (root / path / "2.dcm").unlink()
    planted["series_gaps"] = row["sample_id"]

    row = next(texts)
    answer(row, "   ")
    planted["empty_answers"] = row["sample_id"]

    row = next(pictures)
    answer(row, "There is a nodule in the left upper zone.")
    planted["sides"] = row["sample_id"]

    row = only(next(volumes))
    save_nifti(root / row["messages"][0]["content"][0]["path"], seed=778, spacing=0.004)  # metres
    planted["spacing"] = row["sample_id"]

    row = next(texts)
    del row["licence"]
    planted["licences"] = row["sample_id"]

    row = next(texts)
    row["sample_id"] = rows[0]["sample_id"]
    planted["sample_ids"] = row["sample_id"]

    row = next(texts)
    answer(row, "XXXX [** Name **] ___.")
    planted["masked_targets"] = row["sample_id"]
    return planted


def test_each_planted_fault_is_found_at_its_row_by_its_own_check(clean, registered, tmp_path):
    root = tmp_path / "planted"
    shutil.copytree(clean[0], root, ignore=shutil.ignore_patterns("check"))
    rows = json.loads(json.dumps(clean[1]))
    planted = plant(root, rows, registered)
    train = write_rows(root, rows)["train"]
    code, findings = check(root, "--augmentation", "hflip", "--against", str(registered))
    places = {}
    for name, sample_id in planted.items():
        number = max(n for n, row in enumerate(train, start=1) if row["sample_id"] == sample_id)
        places[name] = f"{root / 'train.jsonl'}:{number}"
    assert len(planted) == 13  # identifiers count twice: in text and in a tag
    assert {row["check"]: row["where"] for row in findings} == places
    assert len(findings) == len(planted), "a fault was also told by another check, or of another row"
    assert code == 1
    left_out = [json.loads(line) for line in (root / "check" / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(row["where"] for row in left_out) == sorted(places.values())
    assert all(row["mend"] for row in findings)
    for name in ("index.html", "findings.jsonl", "quarantine.jsonl", "summary.json", "visuals.jsonl"):
        told = (root / "check" / name).read_text()
        assert "John" not in told and "48213377" not in told, f"{name} quotes the identifier"
    page = (root / "check" / "index.html").read_text()
    assert "<b>Fail</b>" in page and page.count("data:image/png;base64,") >= 4


def test_a_killed_check_goes_on_where_it_stopped(clean, tmp_path):
    root = clean[0]
    out = tmp_path / "check"
    command = [sys.executable, "-m", "medvlm.data_recipes.checks.check", str(root), "--out", str(out)]
    journal = out / "visuals.jsonl"
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)
    for _ in range(6000):
        if journal.exists() and journal.read_bytes().count(b"\n") >= 50:
            break
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    read = journal.read_bytes()
    read = read[: read.rindex(b"\n") + 1]
    assert 50 <= read.count(b"\n") < 400
    assert not (out / "index.html").exists() and not (out / "findings.jsonl").exists()
    journal.write_bytes(read + b'{"key": "torn')

    assert main([str(root), "--out", str(out)]) == 0
    lines = journal.read_bytes()
    assert lines.startswith(read), "what was read before the kill was thrown away"
    keys = [json.loads(line)["key"] for line in lines.splitlines()]
    assert len(keys) == len(set(keys)) == 400

    other = tmp_path / "whole"
    assert main([str(root), "--out", str(other)]) == 0
    assert (other / "findings.jsonl").read_text() == (out / "findings.jsonl").read_text()


def test_an_interrupted_check_says_how_to_go_on(clean, tmp_path):
    out = tmp_path / "check"
    command = [
        sys.executable,
        "-m",
        "medvlm.data_recipes.checks.check",
        str(clean[0]),
        "--out",
        str(out),
        "--workers",
        "2",
    ]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test runner in the background ignores Ctrl-C, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    journal = out / "visuals.jsonl"
    while not (journal.exists() and journal.stat().st_size):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: every process of the group gets it
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert "run the same command again to go on" in said
    assert "Traceback" not in said
