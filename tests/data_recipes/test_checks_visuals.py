"""Checks that look at files: copies, spacing, changes, identifiers in tags and pixels, lengths; the command line."""

import json
import re
import shutil

import numpy as np
import pytest
from checked_set import make_visual, pattern, row_of, save_dicom, save_nifti, save_png, write_rows
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont
from pydicom.uid import generate_uid

from medvlm.data_recipes.checks.check import main
from medvlm.data_recipes.checks.files import spacing_fault
from medvlm.data_recipes.checks.journal import Journal
from medvlm.data_recipes.checks.looking import Look, key_of, look
from medvlm.data_recipes.checks.private import Private
from medvlm.data_recipes.deidentification.pixels import available
from medvlm.data_recipes.manifest import sha256_of
from medvlm.data_recipes.sample import VisualRef


def check(root, rows, *options):
    """Exit code, and (check, severity, line of its manifest) of findings that are no notes."""
    write_rows(root, rows)
    code = main([str(root), "--out", str(root / "check"), *options])
    lines = [json.loads(line) for line in (root / "check" / "findings.jsonl").read_text().splitlines()]
    told = [(one["check"], one["severity"], one["sample_id"]) for one in lines if one["severity"] != "note"]
    return code, told


def about(number, path, split="train", kind="image", **options):
    visual = {"type": kind, "path": path, **({"options": options} if options else {})}
    return row_of(2 * number, visual, split, f"p{number}")


def test_one_file_in_two_splits_and_equal_pixels_in_another_file(tmp_path):
    for number in range(4):
        save_png(tmp_path / f"{number}.png", pattern(number))
    Picture.open(tmp_path / "1.png").save(tmp_path / "1.bmp")
    rows = [about(0, "0.png"), about(1, "1.bmp"), about(2, "2.png"), about(3, "0.png", "test"),
            about(4, "1.png", "validation"), about(5, "1.png", "test"), about(6, "3.png", "test")]  # fmt: skip
    code, told = check(tmp_path, rows)
    assert code == 1
    assert sorted(told) == [
        ("image_copies", "error", "s0"), ("image_copies", "error", "s2"), ("image_copies", "error", "s2"),
        ("image_copies", "error", "s8"),
    ]  # fmt: skip


def test_copies_inside_training_are_a_note(tmp_path):
    save_png(tmp_path / "0.png", pattern(0))
    shutil.copy(tmp_path / "0.png", tmp_path / "1.png")
    assert check(tmp_path, [about(0, "0.png"), about(1, "1.png")]) == (0, [])
    notes = (tmp_path / "check" / "findings.jsonl").read_text()
    assert "1 of 2 visuals have the same pixels as another file" in notes


def test_dark_images_with_little_in_them_are_no_copies_of_each_other(tmp_path):
    for number in range(6):
        picture = np.zeros((200, 200))
        picture[number, :2] = 1
        save_png(tmp_path / f"{number}.png", picture)
    rows = [about(n, f"{n}.png", "train" if n < 3 else "test") for n in range(6)]
    assert check(tmp_path, rows) == (0, [])


def test_a_volume_with_noise_added_is_a_near_copy(tmp_path):
    rng = np.random.default_rng(0)
    voxels = np.stack([pattern(k, 32) for k in range(8)]).astype(np.float32)
    np.save(tmp_path / "one.npy", 1000 * voxels)
    np.save(tmp_path / "two.npy", (3 * voxels + rng.normal(0, 0.01, voxels.shape)).astype(np.float32))
    np.save(tmp_path / "three.npy", voxels[:, ::-1].copy())
    rows = [about(0, "one.npy", kind="volume"), about(1, "two.npy", "test", kind="volume"),
            about(2, "three.npy", kind="volume")]  # fmt: skip
    assert check(tmp_path, rows) == (1, [("near_copies", "error", "s0")])


def test_the_distance_is_an_option(tmp_path):
    save_png(tmp_path / "0.png", pattern(0))
    Picture.open(tmp_path / "0.png").resize((90, 90)).save(tmp_path / "1.jpg", quality=40)
    rows = [about(0, "0.png"), about(1, "1.jpg", "test")]
    assert check(tmp_path, rows)[0] == 1
    assert check(tmp_path, rows, "--near-bits", "0") == (0, [])


@pytest.mark.parametrize(
    ("modality", "shape", "spacing", "fault"),
    [
        ("CT", (40, 512, 512), (5.0, 0.7, 0.7), None),
        ("CT", (40, 512, 512), (0.005, 0.0007, 0.0007), "0.3584 x 0.3584 mm"),
        ("CT", (40, 512, 512), (5000.0, 700.0, 700.0), "3.584e[+]05"),
        ("CT", (40, 512, 512), (500.0, 0.7, 0.7), "slices 500 mm apart"),
        ("DX", (3000, 2500), (0.14, 0.14), None),
        ("DX", (3000, 2500), (14.0, 14.0), "20 to 1500 mm"),
        ("unknown", (100, 100), (0.01, 0.01), None),
        ("unknown", (100, 100), (100.0, 100.0), "of any images"),
        ("MR", (20, 64, 64), None, None),
    ],
)
def test_spacing_that_no_scanner_has_is_told(modality, shape, spacing, fault):
    told = spacing_fault(Look(key="k", path="p", modality=modality, shape=shape, spacing_mm=spacing))
    assert (told is None) if fault is None else re.search(fault, told), told


def test_what_a_manifest_states_and_the_file_denies(tmp_path):
    save_nifti(tmp_path / "0.nii", 0, spacing=4.0)
    shutil.copy(tmp_path / "0.nii", tmp_path / "1.nii")
    save_png(tmp_path / "2.png", pattern(2))
    rows = [about(0, "0.nii", kind="volume"), about(1, "1.nii", kind="volume"), about(2, "2.png")]
    rows[0]["metadata"]["spacing_mm"] = [4.0, 4.0, 4.1]
    rows[1]["metadata"]["spacing_mm"] = [4.0, 4.0, 8.0]
    rows[2]["messages"][0]["content"][0]["sha256"] = "0" * 64
    _, told = check(tmp_path, rows)
    assert told == [("spacing", "error", "s2"), ("files", "error", "s4")]
    rows[2]["messages"][0]["content"][0]["sha256"] = sha256_of(tmp_path / "2.png")
    rows[1]["metadata"]["spacing_mm"] = [4.0, 4.0, 4.0]
    assert check(tmp_path, rows) == (0, [])


def test_missing_and_empty_files_name_every_row_that_shows_them(tmp_path):
    (tmp_path / "empty.png").touch()
    save_png(tmp_path / "even.png", np.full((32, 32), 0.5))
    rows = [about(0, "empty.png"), about(1, "gone.png"), about(2, "gone.png"), about(3, "even.png")]
    code, told = check(tmp_path, rows)
    assert code == 1 and told == [("files", "error", f"s{n}") for n in (0, 2, 4, 6)]
    assert "nothing to see" in (tmp_path / "check" / "findings.jsonl").read_text()


def test_every_file_of_a_series_is_searched_for_names(tmp_path):
    uid = generate_uid()
    for k in range(4):
        name = {"PatientName": "Smith^John", "PatientIdentityRemoved": "NO"} if k == 2 else {}
        save_dicom(tmp_path / "series" / f"{k}.dcm", pattern(k, 32), series=uid, z=5.0 * k, **name)
    assert check(tmp_path, [about(0, "series", kind="volume")]) == (1, [("names_in_tags", "error", "s0")])
    assert "John" not in (tmp_path / "check" / "index.html").read_text()


@pytest.mark.slow
@pytest.mark.skipif(available() is not None, reason=f"no OCR here: {available()}")
def test_text_in_the_pixels_is_told_by_kind_when_asked_for(tmp_path):
    picture = Picture.fromarray((60 * pattern(0, 700)).astype(np.uint8))
    font = ImageFont.load_default(36)
    ImageDraw.Draw(picture).text((30, 40), "Patient: Smith, John", fill=255, font=font)
    ImageDraw.Draw(picture).text((30, 600), "MRN 48213377", fill=255, font=font)
    picture.save(tmp_path / "0.png")
    save_png(tmp_path / "1.png", pattern(1, 300))
    rows = [about(0, "0.png"), about(1, "1.png")]
    assert check(tmp_path, rows) == (0, [])
    _, told = check(tmp_path, rows, "--ocr")
    assert told == [("names_in_pixels", "error", "s0")]
    for name in ("findings.jsonl", "visuals.jsonl", "index.html"):
        assert "48213377" not in (tmp_path / "check" / name).read_text()


def test_lengths_are_those_of_training_and_go_into_a_journal(tmp_path, processor):
    from conftest import tiny_model

    from medvlm.model.loading import save_checkpoint

    save_checkpoint(tmp_path / "checkpoint", tiny_model(processor), processor)
    for number in range(3):
        save_png(tmp_path / f"{number}.png", pattern(number))
    rows = [about(n, f"{n}.png") for n in range(3)]
    rows[1]["messages"][-1]["content"] = [{"type": "text", "text": "a very long answer " * 60}]
    options = ("--processor", str(tmp_path / "checkpoint"), "--tokens-per-pack", "300")
    code, told = check(tmp_path, rows, *options)
    assert told == [("lengths", "error", "s2")]
    lines = (tmp_path / "check" / "lengths.jsonl").read_text()
    assert lines.count("\n") == 3 and json.loads(lines.splitlines()[0])["supervised"] > 0
    assert "Lengths of training rows" in (tmp_path / "check" / "index.html").read_text()
    assert check(tmp_path, rows, *options) == (code, told)
    assert (tmp_path / "check" / "lengths.jsonl").read_text() == lines


def test_a_visual_that_changed_or_is_looked_at_otherwise_has_another_key(tmp_path):
    save_png(tmp_path / "0.png", pattern(0))
    ref = VisualRef(kind="image", path=str(tmp_path / "0.png"))
    first = key_of(ref, Private())
    assert look(ref, Private()).key == first
    assert key_of(ref, Private(pixels=True)) != first
    save_png(tmp_path / "0.png", pattern(1))
    assert key_of(ref, Private()) != first
    (tmp_path / "0.png").unlink()
    assert "no such file" in look(ref, Private()).refusal["reason"]


def test_a_journal_keeps_whole_lines_and_drops_a_torn_one(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.add({"key": "a", "value": 1})
        journal.add({"key": "é", "value": 2})
    path.write_bytes(path.read_bytes() + b"not json\n" + b'{"key": "c", "val')
    with Journal(path) as journal:
        assert len(journal) == 2 and journal.get("é")["value"] == 2 and "c" not in journal
        journal.add({"key": "c", "value": 3})
        assert journal.get("c") == {"key": "c", "value": 3} and journal.get("a")["value"] == 1
    assert b'"val{' not in path.read_bytes()


def test_what_cannot_be_done_is_refused_with_2(tmp_path, capsys):
    make_visual(tmp_path, 0)
    write_rows(tmp_path, [about(0, "images/000.png")])
    for words, said in (
        ([str(tmp_path), "--out", str(tmp_path)], "a folder of its own"),
        ([str(tmp_path / "nothing"), "--out", str(tmp_path / "c")], "no such file"),
        ([str(tmp_path), "--out", str(tmp_path / "c"), "--augmentation", "flop"], "unknown augmentation"),
        ([str(tmp_path), "--out", str(tmp_path / "c"), "--near-bits", "99"], "--near-bits"),
        ([str(tmp_path), "--out", str(tmp_path / "c"), "--processor", str(tmp_path / "nothing")], "--processor"),
    ):
        assert main(words) == 2
        told = capsys.readouterr().err
        assert said in told and "Traceback" not in told


def test_nothing_does_not_pass(tmp_path):
    assert check(tmp_path, []) == (1, [("rows", "error", None)])
    assert (tmp_path / "check" / "quarantine.jsonl").read_text() == ""
