"""medvlm data deidentify as a whole: texts, rows and tables, a run that is stopped, and what is never written."""

from __future__ import annotations

import csv
import json
import os
import stat
import subprocess
import sys
import time

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medvlm.data_recipes.deidentification import deidentify
from medvlm.data_recipes.deidentification.deidentify import Refused, deidentify_folder
from medvlm.data_recipes.deidentification.keyed import Key, read_key
from medvlm.data_recipes.deidentification.options import Options, read_boxes
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.sample import Sample, read_jsonl

SECRET = "0123456789abcdef-a-secret-of-tests"
KEY = Key(SECRET.encode())
PLANTED = ("Zebulon", "Quartermain", "MRN77812", "2019-03-14", "317-555-1234", SECRET)
REPORT = (
    "Patient: QUARTERMAIN, ZEBULON  MRN: MRN77812\nSeen on 2019-03-14. Call 317-555-1234.\n"
    "Zebulon has a 3.2 cm mass at L4/5, 12 x 14 mm node, 120/80.\nSigned by: Ann Robertson, MD\n"
)


def write_dicom(path, patient="MRN77812", name="QUARTERMAIN^ZEBULON", k=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID = ds.SeriesInstanceUID = "1.2.3.4.5.6.7"
    ds.PatientID, ds.PatientName, ds.Modality, ds.StudyDate = patient, name, "CT", "20190314"
    pixels = np.random.default_rng(k).integers(0, 2000, (8, 8)).astype(np.uint16)
    ds.Rows = ds.Columns = 8
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.RescaleSlope, ds.RescaleIntercept, ds.PixelData = "1", "-1024", pixels.tobytes()
    ds.save_as(path, enforce_file_format=True)


def row(number, answer, path="ct/MRN77812.dcm", **changes):
    return {
        "sample_id": f"a/{number}", "patient_id": "a/p1", "study_id": "a/p1", "source": "own", "licence": "own",
        "split": "train",
        "messages": [
            {"role": "user", "content": [{"type": "image", "path": path, "sha256": "0" * 64},
                                         {"type": "text", "text": "Report of Mr. Quartermain?"}]},
            {"role": "assistant", "content": answer},
        ],
        **changes,
    }  # fmt: skip


@pytest.fixture
def source(tmp_path):
    top = tmp_path / "in"
    write_dicom(top / "ct" / "MRN77812.dcm")
    (top / "ct" / "report MRN77812.txt").write_text(REPORT)
    rows = [row(1, REPORT), row(2, "3.2 cm, Quartermain"), row(3, "fine", path="/elsewhere/x.dcm")]
    absolute = row(4, "A 3.2 cm mass.", path=str(top / "ct" / "MRN77812.dcm"))
    lines = [json.dumps(one) for one in (*rows, absolute)] + ["{not json"]
    (top / "train.jsonl").write_text("\n".join(lines) + "\n")
    with (top / "labels.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["mrn", "report", "size"])
        table.writerow(["MRN77812", "Dr. Quartermain, Zebulon\n2019-03-14, 3.2 cm", "3.2 cm"])
        table.writerow(["MRN77812", "short row"])
    return top


OPTIONS = Options(columns=("report",), id_columns=("mrn",), look="no")


def everything(folder):
    names = "\n".join(str(p.relative_to(folder)) for p in folder.rglob("*"))
    return names + "".join(p.read_bytes().decode("latin-1") for p in folder.rglob("*") if p.is_file())


def test_nothing_planted_is_written_or_said(source, tmp_path, capfd):
    out = tmp_path / "out"
    (tmp_path / "key").write_text(SECRET)
    code = deidentify.main(
        [str(source), "--out", str(out), "--key", str(tmp_path / "key"), "--columns", "report", "--id-columns", "mrn",
         "--ocr", "no", "--progress"]
    )  # fmt: skip
    assert code == 1  # a broken line, a short row, a visual outside
    written, said = everything(out).lower(), "".join(capfd.readouterr()).lower()
    for planted in PLANTED:
        assert planted.lower() not in written and planted.lower() not in said, planted
    for kept in ("3.2 cm mass at l4/5", "12 x 14 mm", "120/80"):
        assert kept in written
    report = (out / "deidentification" / "report.md").read_text()
    assert "The second look found nothing" in report and "| text | name |" in report
    refused = [json.loads(line) for line in (out / "deidentification" / "quarantine.jsonl").open()]
    assert sorted(one["where"] for one in refused) == ["labels.csv:4", "train.jsonl:3", "train.jsonl:5"]


def test_rows_keep_their_form_and_find_their_visuals(source, tmp_path):
    deidentify_folder(source, tmp_path / "out", key=KEY, options=OPTIONS)
    samples = list(read_jsonl(tmp_path / "out" / "train.jsonl"))
    assert [s.sample_id for s in samples if isinstance(s, Sample)] == ["a/1", "a/2", "a/4"]
    for sample in samples:
        (ref,) = sample.visuals()
        assert ref.sha256 is None
        np.testing.assert_array_equal(
            read(ref, tmp_path / "out").pixels,
            read(type(ref)(kind="image", path="ct/MRN77812.dcm"), source).pixels,
        )
    assert samples[0].turns[0].text == "Report of Mr. [NAME]?"
    assert samples[1].turns[1].text == "3.2 cm, [NAME]"  # known from the header of its visual
    with (tmp_path / "out" / "labels.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["mrn", "report", "size"] and rows[1][1:] == ["Dr. [NAME]\n[DATE], 3.2 cm", "3.2 cm"]
    assert rows[1][0].startswith("medvlm-")


def test_dates_of_texts_move_with_those_of_the_scan(source, tmp_path):
    options = Options(keep=frozenset(["dates"]), columns=("report",), id_columns=("mrn",), look="no")
    summary = deidentify_folder(source, tmp_path / "out", key=KEY, options=options)
    assert not summary.found
    date = pydicom.dcmread(next((tmp_path / "out" / "ct").glob("*.dcm"))).StudyDate
    text = next((tmp_path / "out" / "ct").glob("*.txt")).read_text()
    assert date != "20190314" and f"{date[:4]}-{date[4:6]}-{date[6:]}" in text
    rows = list(read_jsonl(tmp_path / "out" / "train.jsonl"))
    assert f"{date[:4]}-{date[4:6]}-{date[6:]}" in rows[0].turns[1].text


def test_what_is_left_is_a_leak_and_exit_code_1(source, tmp_path):
    only = tmp_path / "only"
    only.mkdir()
    leaky = row(1, "fine", path="x.dcm", metadata={"referrer": "Dr. Quartermain"}, sample_id="on 2019-03-14")
    (only / "train.jsonl").write_text(json.dumps(leaky) + "\n")
    summary = deidentify_folder(only, tmp_path / "out", key=KEY)
    assert dict(summary.found) == {("metadata", "name"): 1, ("sample_id", "date"): 1}
    leaks = [json.loads(line) for line in (tmp_path / "out" / "deidentification" / "leaks.jsonl").open()]
    assert {one["file"] for one in leaks} == {"train.jsonl:1"} and "Quartermain" not in str(leaks)
    assert "Do not pass these files on" in (tmp_path / "out" / "deidentification" / "report.md").read_text()
    (tmp_path / "key").write_text(SECRET)
    assert deidentify.main([str(only), "--out", str(tmp_path / "o2"), "--key", str(tmp_path / "key")]) == 1
    (only / "train.jsonl").write_text(json.dumps(row(1, "fine", path="x.dcm")) + "\n")
    hashed = Options(hash_ids=True)
    summary = deidentify_folder(only, tmp_path / "o3", key=KEY, options=hashed)
    assert summary.clean
    assert next(iter(read_jsonl(tmp_path / "o3" / "train.jsonl"))).patient_id.startswith("medvlm-")
    assert deidentify.main([str(only), "--out", str(tmp_path / "o4"), "--key", str(tmp_path / "key")]) == 0


def test_a_stopped_run_goes_on(source, tmp_path, monkeypatch):
    for k in range(4):
        write_dicom(source / f"p{k}" / "a.dcm", patient=f"PAT-{k}", k=k)
    whole = tmp_path / "whole"
    deidentify_folder(source, whole, key=KEY, options=OPTIONS)
    out = tmp_path / "out"
    seen = []

    def stopping(task, **rest):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(task.name)
        return original(task, **rest)

    original = deidentify.clean_file
    monkeypatch.setattr(deidentify, "clean_file", stopping)
    with pytest.raises(KeyboardInterrupt):
        deidentify_folder(source, out, key=KEY, options=OPTIONS)
    journal = out / "deidentification" / "journal.jsonl"
    journal.write_text(journal.read_text() + '{"name": "torn')
    again = []

    def counting(task, **rest):
        again.append(task.name)
        return original(task, **rest)

    monkeypatch.setattr(deidentify, "clean_file", counting)
    deidentify_folder(source, out, key=KEY, options=OPTIONS)
    assert not set(seen) & set(again) and len(seen) + len(again) == 8
    for path in whole.rglob("*"):
        if path.is_file() and path.name != "journal.jsonl":
            assert path.read_bytes() == (out / path.relative_to(whole)).read_bytes(), path.name
    assert not list(out.rglob(".writing*"))
    (source / "p1" / "a.dcm").unlink()
    write_dicom(source / "p1" / "a.dcm", patient="PAT-9", k=9)
    again.clear()
    deidentify_folder(source, out, key=KEY, options=OPTIONS)
    assert len(again) == 1  # the changed file alone


@pytest.mark.slow
def test_workers_write_the_same(source, tmp_path):
    one = deidentify_folder(source, tmp_path / "one", key=KEY, options=OPTIONS)
    two = deidentify_folder(source, tmp_path / "two", key=KEY, options=OPTIONS, workers=2)
    assert one == two
    for path in (tmp_path / "one").rglob("*"):
        if path.is_file() and path.name != "journal.jsonl":
            assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_mapping_only_on_request_and_for_its_owner(source, tmp_path):
    deidentify_folder(source, tmp_path / "out", key=KEY, options=OPTIONS, mapping=tmp_path / "map.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "map.jsonl").open()]
    assert {one["source"] for one in rows} >= {"ct/MRN77812.dcm", "train.jsonl"}
    assert stat.S_IMODE((tmp_path / "map.jsonl").stat().st_mode) == 0o600


def test_refusals(source, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("MEDVLM_DEIDENTIFY_KEY", raising=False)
    assert deidentify.main([str(source), "--out", str(tmp_path / "out")]) == 2
    assert "openssl rand" in capsys.readouterr().err
    monkeypatch.setenv("MEDVLM_DEIDENTIFY_KEY", "short")
    with pytest.raises(ValueError, match="5 bytes"):
        read_key(None)
    monkeypatch.setenv("MEDVLM_DEIDENTIFY_KEY", SECRET)
    assert SECRET not in repr(read_key(None)) and read_key(None).check() == KEY.check()
    for out in (source / "out", source.parent):
        with pytest.raises(Refused):
            deidentify_folder(source, out, key=KEY)
    assert deidentify.main([str(source), "--out", str(tmp_path / "o"), "--mapping", str(tmp_path / "o" / "m")]) == 2
    deidentify_folder(source, tmp_path / "done", key=KEY, options=OPTIONS)
    with pytest.raises(Refused, match="another key"):
        deidentify_folder(source, tmp_path / "done", key=KEY, options=Options(hash_ids=True))
    with pytest.raises(Refused, match="another key"):
        deidentify_folder(source, tmp_path / "done", key=Key(b"another key of 20 bytes"), options=OPTIONS)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(Refused, match="not empty"):
        deidentify_folder(source, tmp_path / "full", key=KEY)
    (tmp_path / "boxes.json").write_text('[{"rows": 4, "columns": 4, "low": [0, 0], "high": [9, 9]}]')
    with pytest.raises(ValueError, match="box 1"):
        read_boxes(tmp_path / "boxes.json")


def test_a_table_without_named_columns_is_refused(source, tmp_path):
    summary = deidentify_folder(source, tmp_path / "out", key=KEY, options=Options(look="no"))
    assert not (tmp_path / "out" / "labels.csv").exists()
    assert any("--columns" in reason for reason in summary.refused)


def test_a_table_with_semicolons_is_told(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "t.csv").write_text("Nachname;Befund\nMüller;Kein Erguss.\n", encoding="utf-8")
    summary = deidentify_folder(tmp_path / "in", tmp_path / "o", key=KEY, options=Options(columns=("Befund",)))
    assert list(summary.refused) == [
        "its header is one cell: another character than the comma (in .tsv the tab) stands between the cells"
    ]


@pytest.mark.slow
def test_no_worker_outlives_a_killed_run(tmp_path):
    (tmp_path / "key").write_text("0123456789abcdef" * 4)
    for k in range(150):
        write_dicom(tmp_path / "in" / f"{k}.dcm", patient=f"PAT-{k}", k=k)
    out = tmp_path / "out"
    words = ["-m", "medvlm.data_recipes.deidentification.deidentify", str(tmp_path / "in"), "--out", str(out)]
    child = subprocess.Popen(
        [sys.executable, *words, "--key", str(tmp_path / "key"), "--workers", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    end = time.monotonic() + 60
    journal = out / "deidentification" / "journal.jsonl"
    while time.monotonic() < end and not (journal.is_file() and journal.read_text().count("\n") > 2):
        time.sleep(0.02)
    assert child.poll() is None
    child.kill()
    child.communicate(timeout=30)  # ends when the last process that holds its standard error has ended
    with pytest.raises(ProcessLookupError):
        for _ in range(500):
            os.killpg(child.pid, 0)
            time.sleep(0.02)


def test_llm_command_in_a_run(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("Xanthippe has a 3.2 cm mass.")
    script = tmp_path / "llm.py"
    script.write_text(
        "import json, sys\nn = len(sys.stdin.read())\nprint(json.dumps([{'kind': 'name', 'start': 0, 'end': n}]))\n"
    )
    options = Options(command=f"{sys.executable} {script}")
    deidentify_folder(tmp_path / "in", tmp_path / "out", key=KEY, options=options)
    text = next((tmp_path / "out").glob("*.txt")).read_text()
    assert "Xanthippe" not in text and "3.2 cm" in text
    script.write_text("import sys; sys.exit(1)")
    summary = deidentify_folder(tmp_path / "in", tmp_path / "bad", key=KEY, options=options)
    assert not list((tmp_path / "bad").glob("*.txt")) and not summary.clean
