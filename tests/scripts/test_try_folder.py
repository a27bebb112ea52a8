"""A mixed folder -> a trained and evaluated checkpoint and a report, with exact counts and named refusals."""

from __future__ import annotations

import json
from pathlib import Path

import av
import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from medvlm.data_recipes.manifest import read_manifest
from medvlm.data_recipes.walk import walk_folder
from medvlm.model.loading import load_checkpoint
from medvlm.scripts import try_folder
from medvlm.train.config import load_curriculum

STAGES = ["align", "instruct-2d", "instruct-2d-3d-video", "lora-sft", "lora-dpo"]


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (24, 20), dtype=np.uint8)).save(path)


def ct(folder: Path, *, patient: str, places: tuple[float, ...]) -> None:
    folder.mkdir(parents=True)
    series = generate_uid(entropy_srcs=[patient])
    for number, place in enumerate(places):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2")
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.PatientID, data.PatientName, data.Modality, data.SeriesInstanceUID = patient, "Doe^Jane", "CT", series
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.Rows = data.Columns = 16
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.PixelSpacing, data.ImageOrientationPatient = [1, 1], [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = [0, 0, place]
        pixels = np.random.default_rng([number, len(places)]).integers(0, 2000, (16, 16))
        data.PixelData = pixels.astype(np.int16).tobytes()
        data.save_as(folder / f"{number}.dcm", enforce_file_format=True)


def clip(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for frame in np.random.default_rng(seed).integers(0, 255, (4, 32, 32, 3), dtype=np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def vqa_rad(folder: Path) -> None:
    """Two training rows of one image, a test row of another, and a row whose image is torn."""
    common = {"image_organ": "CHEST", "question_type": "PRES"}
    told = [
        ("a.jpg", "Is there a nodule?", "yes", "CLOSED", "freeform"),
        ("a.jpg", "Where is it?", "left lung", "OPEN", "freeform"),
        ("b.jpg", "Is it big?", "no", "CLOSED", "test_freeform"),
        ("torn.jpg", "Is it torn?", "yes", "CLOSED", "freeform"),
    ]
    names = ("image_name", "question", "answer", "answer_type", "phrase_type")
    rows = [common | {"qid": n} | dict(zip(names, row, strict=True)) for n, row in enumerate(told)]
    folder.mkdir(parents=True)
    (folder / "VQA_RAD Dataset Public.json").write_text(json.dumps(rows))
    for seed, name in enumerate(("a", "b", "torn")):
        picture(folder / "VQA_RAD Image Folder" / f"{name}.jpg", seed)
    torn = folder / "VQA_RAD Image Folder" / "torn.jpg"
    torn.write_bytes(torn.read_bytes()[:-60])


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    root = tmp_path / "clinic"
    vqa_rad(root / "published")
    picture(root / "photos" / "one.png", 7)
    (root / "photos" / "broken.jpg").write_bytes((root / "photos" / "one.png").read_bytes()[:90])
    ct(root / "ct", patient="raw-id-7", places=(0.0, 2.0, 4.0, 6.0, 8.0))
    ct(root / "uneven", patient="raw-id-8", places=(0.0, 2.0, 6.0, 8.0))
    (root / "mri").mkdir()
    voxels = np.random.default_rng(3).random((9, 8, 6), dtype=np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1, 1, 2, 1])), root / "mri" / "head.nii.gz")
    clip(root / "clips" / "a.mp4", 1)
    (root / "notes.txt").write_text("hello")
    return root


def test_a_mixed_folder_becomes_a_report(clinic: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert try_folder.main([str(clinic), str(out), "--steps", "1", "--workers", "1"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    counts = {name: summary[name] for name in ("samples", "images", "volumes", "videos", "quarantined", "other_files")}
    assert counts == {"samples": 11, "images": 3, "volumes": 3, "videos": 1, "quarantined": 2, "other_files": 1}
    assert summary["by_source"]["vqa-rad"] == {"train": 2, "validation": 0, "test": 1, "quarantined": 1}
    assert summary["stages"] == dict.fromkeys(STAGES, 1) and summary["skipped_stages"] == {}
    assert summary["pairs"] == 5  # the yes, the left, and three numbers of slices
    for number, name in enumerate(STAGES, start=1):
        (row,) = (out / "stages" / f"{number:02d}-{name}" / "metrics.jsonl").read_text().splitlines()
        assert np.isfinite(json.loads(row)["loss"])
    load_checkpoint(summary["checkpoint"])
    refused = {Path(json.loads(line)["where"]).name for line in (out / "quarantine.jsonl").read_text().splitlines()}
    assert refused == {"broken.jpg", "torn.jpg"}
    report = (out / "report.html").read_text()
    for piece in ("broken.jpg", "torn.jpg", "What was found", "vqa-rad", "loose-files", "head.nii.gz", "a.mp4"):
        assert piece in report, piece
    assert report.count("data:image/png") >= 7  # one for each visual, and the answers
    assert 'src="http' not in report and "Doe^" not in report and "Jane" not in report and "raw-id" not in report


def test_a_stage_without_data_is_skipped_and_text_goes_along(clinic: Path) -> None:
    curriculum = load_curriculum(try_folder.CONFIG)
    for path in [*(clinic / "ct").iterdir(), *(clinic / "uneven").iterdir(), *(clinic / "mri").iterdir()]:
        path.unlink()
    trial = try_folder.choose(walk_folder(clinic), curriculum, 100)
    stages, skipped = try_folder.plan_stages(curriculum, trial, None)
    assert [stage.name for stage in stages] == STAGES and not skipped
    (clinic / "clips" / "a.mp4").unlink()
    trial = try_folder.choose(walk_folder(clinic), curriculum, 100)
    stages, skipped = try_folder.plan_stages(curriculum, trial, 3)
    assert skipped == {"instruct-2d-3d-video": "the folder gives nothing to train for 3d and video"}
    assert [stage.name for stage in stages] == [name for name in STAGES if name not in skipped]
    assert {source.manifest for stage in stages for source in stage.mixture} <= set(trial.train)
    assert all(stage.steps == 3 and stage.warmup_steps <= 3 for stage in stages)


def test_without_a_test_patient_training_samples_are_asked_and_that_is_said(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "one.png", 0)
    trial = try_folder.choose(walk_folder(tmp_path / "in"), load_curriculum(try_folder.CONFIG), 10)
    assert any("TRAINING samples" in note for note in trial.notes)
    (asked,) = trial.asked["test_questions.jsonl"]
    assert asked.question is not None and asked.question.answers == ("image",) and asked.turns[-1].role == "user"


def test_a_folder_without_anything_usable_ends_with_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert try_folder.main([str(tmp_path / "in"), str(tmp_path / "out")]) == 2
    assert "holds nothing that can be used" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["samples"] == 0
    assert "broken.png" in (tmp_path / "out" / "quarantine.jsonl").read_text()


def test_no_folder_and_out_inside_the_folder_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, out, why in ((tmp_path / "none", tmp_path / "o", "not a folder"), (tmp_path, tmp_path / "o", "inside")):
        with pytest.raises(SystemExit) as stop:
            try_folder.main([str(folder), str(out)])
        assert stop.value.code == 2 and why in capsys.readouterr().err


def test_what_is_chosen_fits_the_packs(clinic: Path) -> None:
    curriculum = load_curriculum(try_folder.CONFIG, ["data.tokens_per_pack=90"])
    trial = try_folder.choose(walk_folder(clinic), curriculum, 100)
    assert any(note.startswith("Too long") for note in trial.notes)
    assert all(try_folder.most_tokens(s, curriculum) <= 90 for rows in trial.train.values() for s in rows)


def test_the_trial_manifests_hold_what_training_takes(clinic: Path, tmp_path: Path) -> None:
    trial = try_folder.choose(walk_folder(clinic), load_curriculum(try_folder.CONFIG), 100)
    try_folder.write_trial(trial, tmp_path / "trial")
    for name in trial.train:
        samples, refused = read_manifest(tmp_path / "trial" / name)
        assert samples and not refused and all(s.split == "train" and s.question is None for s in samples)
        assert all((s.preference is not None) == (name == "train_pairs.jsonl") for s in samples)
