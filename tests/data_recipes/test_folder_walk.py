"""A folder of mixed clinical files -> manifests, with exact counts and nothing silently lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from medvlm.data_recipes import walk
from medvlm.data_recipes.manifest import read_manifest, verify
from medvlm.data_recipes.readers import read

NAME = "Doe^Jane"
RANDOM = np.random.default_rng(0)


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16), dtype=np.uint8)).save(path)


def slice_file(path: Path, *, series: str, place: float, patient: str = "raw-id-7", modality: str = "CT") -> None:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2")
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.PatientID, data.PatientName, data.Modality, data.SeriesInstanceUID = patient, NAME, modality, series
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.Rows = data.Columns = 16
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.PixelSpacing, data.ImageOrientationPatient = [1, 1], [1, 0, 0, 0, 1, 0]
    data.ImagePositionPatient = [0, 0, place]
    data.PixelData = RANDOM.integers(0, 2000, (16, 16)).astype(np.int16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def clip(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for step in range(6):
            frame = np.full((32, 32, 3), 40 * step, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def nifti(path: Path, shape: tuple[int, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(RANDOM.random(shape, dtype=np.float32), np.diag([1, 1, 2, 1])), path)


def vqa_rad(folder: Path) -> None:
    row = {"image_organ": "CHEST", "question_type": "PRES", "answer_type": "CLOSED", "answer": "yes"}
    rows = [
        row | {"qid": 1, "phrase_type": "freeform", "image_name": "a.jpg", "question": "Is it big?"},
        row | {"qid": 2, "phrase_type": "test_freeform", "image_name": "a.jpg", "question": "Any nodule ?"},
        row | {"qid": 3, "phrase_type": "freeform", "image_name": "a.jpg", "question": "any nodule?"},
        row | {"qid": 4, "phrase_type": "freeform", "image_name": "torn.jpg", "question": "Is it torn?"},
        row | {"qid": 5, "phrase_type": "freeform", "image_name": "a.jpg", "question": "Empty?", "answer": ""},
    ]
    folder.mkdir(parents=True)
    (folder / "VQA_RAD Dataset Public.json").write_text(json.dumps(rows))
    picture(folder / "VQA_RAD Image Folder" / "a.jpg", 1)
    picture(folder / "VQA_RAD Image Folder" / "torn.jpg", 2)
    torn = folder / "VQA_RAD Image Folder" / "torn.jpg"
    torn.write_bytes(torn.read_bytes()[:-60])


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A dataset, loose visuals of every kind, and every kind of trouble, in one folder."""
    root = tmp_path / "clinic"
    vqa_rad(root / "published")
    picture(root / "photos" / "one.png", 3)
    shutil.copy(root / "published" / "VQA_RAD Image Folder" / "a.jpg", root / "photos" / "copy.jpg")
    (root / "photos" / "empty.png").write_bytes(b"")
    (root / "photos" / "text.jpg").write_text("no picture at all")
    for number in range(5):
        slice_file(root / "ct" / f"{number}", series="1.2.3.1", place=2.0 * number)
    for number in (0, 1, 3, 4):
        slice_file(root / "gap" / f"{number}.dcm", series="1.2.3.2", place=2.0 * number, patient="raw-id-8")
    slice_file(root / "single.dcm", series="1.2.3.3", place=0, patient="raw-id-9", modality="OT")
    nifti(root / "mri" / "brain.nii.gz", (6, 7, 8))
    nifti(root / "mri" / "functional.nii.gz", (4, 4, 4, 3))
    clip(root / "clips" / "a.mp4")
    (root / "notes.txt").write_text("hello")
    (root / "table.csv").write_text("a,b\n1,2\n")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "x.png").write_bytes(b"")
    return root


def test_counts_of_a_mixed_folder(mixed: Path) -> None:
    result = walk.walk_folder(mixed)
    assert result.counts == {
        "samples": 10,
        "images": 4,
        "volumes": 2,
        "videos": 1,
        "quarantined": 7,
        "other_files": 3,
        "by_source": {
            "loose-files": {"train": 6, "validation": 0, "test": 2, "quarantined": 4},
            "vqa-rad": {"train": 1, "validation": 0, "test": 1, "quarantined": 3},
        },
    }
    where = {Path(bad.where).name: bad.reason for bad in result.quarantine}
    assert where["empty.png"] == "the file is empty"
    assert where["text.jpg"].startswith("named '.jpg', but its content is no picture")
    assert "1.dcm and 3.dcm are 4.000 mm apart" in where["gap"]
    assert "4D file of 3 volumes" in where["functional.nii.gz"]
    assert "'answer' is empty" in where["VQA_RAD Dataset Public.json:5"]
    assert "expected a whole JPEG picture" in where["torn.jpg"]
    assert where["a.jpg"] == "asks what the public test row 'vqa-rad/2' asks about the same visuals"


def test_loose_visuals_say_only_what_the_file_says(mixed: Path) -> None:
    result = walk.walk_folder(mixed)
    said = {}
    for sample in result.samples:
        if sample.source == "loose-files":
            answer = sample.question.answers[0] if sample.question else sample.turns[-1].text
            said[sample.sample_id.split("/", 1)[1]] = (sample.turns[0].text, answer)
    kind = "Is this an image, a volume or a video? Answer image, volume or video."
    series = next(name.split("#")[1].split("/")[0] for name in said if name.startswith("ct#"))
    assert (
        said
        == {
            f"ct#{series}/modality": ("Which modality is this?", "CT"),
            f"ct#{series}/slices": ("How many axial slices does this volume have?", "5"),
            "single.dcm/kind": (kind, "image"),
            "mri/brain.nii.gz/kind": (kind, "volume"),
            "mri/brain.nii.gz/slices": ("How many axial slices does this volume have?", "8"),
            "clips/a.mp4/kind": (kind, "video"),
            "photos/one.png/kind": (kind, "image"),
            "photos/copy.jpg/kind": (kind, "image"),
        }
        or len(said) != 8
    )


def test_no_name_and_no_raw_identity_in_what_is_written(mixed: Path, tmp_path: Path) -> None:
    walk.write_walk(walk.walk_folder(mixed), tmp_path / "out")
    written = "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert "Doe" not in written and "Jane" not in written and "raw-id" not in written


def test_a_copy_of_a_public_test_image_goes_where_that_one_is(mixed: Path) -> None:
    (copy,) = [s for s in walk.walk_folder(mixed).samples if s.sample_id.endswith("copy.jpg/kind")]
    assert (copy.patient_id, copy.split) == ("medpix/a", "test")


def test_what_is_written_verifies_and_reads(mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert walk.main([str(mixed), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        ".visuals.sqlite", "quarantine.jsonl", "summary.json", "test_questions.jsonl", "train.jsonl",
    ]  # fmt: skip
    assert not verify(out / "train.jsonl", out / "test_questions.jsonl", hashes=True, allow_official=True)
    train, refused = read_manifest(out / "train.jsonl")
    test, refused_test = read_manifest(out / "test_questions.jsonl")
    assert not refused and not refused_test and len(train) + len(test) == 10
    assert all(s.turns[-1].role == "assistant" for s in train) and all(s.question for s in test)
    kinds = {type(read(ref, Path("/"))).__name__ for s in (*train, *test) for ref in s.visuals()}
    assert kinds == {"Image", "Volume", "Video"}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["quarantined"] == len((out / "quarantine.jsonl").read_text().splitlines())


@pytest.mark.slow
def test_two_processes_read_what_one_reads(mixed: Path) -> None:
    assert walk.walk_folder(mixed, workers=2).samples == walk.walk_folder(mixed).samples


def test_gaps_are_read_when_asked_for(mixed: Path) -> None:
    result = walk.walk_folder(mixed, resample_gaps=True)
    (slices,) = [s for s in result.samples if s.sample_id.startswith("loose-files/gap#") and "slices" in s.sample_id]
    assert (slices.question.answers[0] if slices.question else slices.turns[-1].text) == "5"


def test_two_series_in_one_folder_stay_two_patients(tmp_path: Path) -> None:
    for number in range(4):
        slice_file(tmp_path / f"a{number}", series="1.2.1", place=number, patient="A")
        slice_file(tmp_path / f"b{number}", series="1.2.2", place=number, patient="B")
    result = walk.walk_folder(tmp_path)
    assert result.counts["volumes"] == 2 and not result.quarantine
    assert len({sample.patient_id for sample in result.samples}) == 2


def test_the_same_dataset_twice_is_refused_not_doubled(tmp_path: Path) -> None:
    vqa_rad(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    result = walk.walk_folder(tmp_path)
    assert result.counts["samples"] == 2
    assert sum("occurs twice" in bad.reason for bad in result.quarantine) >= 2


def test_no_folder_is_said_plainly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        walk.walk_folder(tmp_path / "none")
    with pytest.raises(SystemExit):
        walk.main([str(tmp_path / "none"), "--out", str(tmp_path)])
    assert "is not a folder; give the folder that holds the files" in capsys.readouterr().err


def test_a_visual_of_one_value_is_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.float32), np.eye(4)), tmp_path / "blank.nii.gz")
    (bad,) = walk.walk_folder(tmp_path).quarantine
    assert bad.reason == "all 120 values are 0: there is nothing to see" and bad.where.endswith("blank.nii.gz")


def test_a_folder_without_anything_usable_ends_with_one(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("hello")
    assert walk.main([str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 1
