"""A clean set of 1,000 samples of synthetic files in every format, and faults to plant into it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image as Picture
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

WORDS = str.split(
    "opacity density margin contour texture signal lesion region border shadow nodule mass cyst plaque node vessel "
    "airway tissue effusion septum cortex marrow fissure apex base hilum recess capsule lobe segment"
)
SHAPES = ("round", "oval", "lobulated", "spiculated")


def pattern(seed: int, size: int = 64) -> np.ndarray:
    """(size, size) float in [0, 1]: waves that grow weaker with frequency, unlike those of any other seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    waves = rng.normal(size=(size, size)) / (1 + np.hypot(x, y)) ** 1.2
    axis = np.cos(np.pi * np.outer(np.arange(size) + 0.5, np.arange(size)) / size)
    picture = axis @ waves @ axis.T
    return (picture - picture.min()) / np.ptp(picture)


def save_png(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray((255 * picture).astype(np.uint8)).save(path)


def save_nifti(path: Path, seed: int, spacing: float = 4.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.stack([1000 * pattern(10_000 * seed + k, 32) for k in range(6)], axis=2).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([spacing, spacing, spacing, 1.0])), path)


def save_dicom(path: Path, picture: np.ndarray, *, series: str, z: float = 0.0, **tags: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_ = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    slice_.StudyInstanceUID, slice_.SeriesInstanceUID = series[:60] + ".1", series
    slice_.PatientIdentityRemoved, slice_.Modality = "YES", "CT"
    slice_.Rows, slice_.Columns = picture.shape
    slice_.PixelSpacing, slice_.ImageOrientationPatient = [5.0, 5.0], [1, 0, 0, 0, 1, 0]
    slice_.ImagePositionPatient = [0, 0, z]
    slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
    slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 12, 11, 0
    slice_.RescaleSlope, slice_.RescaleIntercept = 1, -1024
    for name, value in tags.items():
        setattr(slice_, name, value)
    slice_.PixelData = (2000 * picture).astype(np.uint16).tobytes()
    slice_.save_as(path, enforce_file_format=True)


def save_series(folder: Path, seed: int, slices: int = 5) -> None:
    uid = generate_uid(entropy_srcs=[str(seed)])
    for k in range(slices):
        save_dicom(folder / f"{k}.dcm", pattern(20_000 * (seed + 1) + k, 32), series=uid, z=5.0 * k)


def make_visual(root: Path, number: int) -> dict[str, Any]:
    """Of every 20 visuals 16 are PNG, 2 DICOM files, 1 a series and 1 a NIfTI volume."""
    kind, name = number % 20, f"images/{number:03d}"
    if kind < 16:
        save_png(root / f"{name}.png", pattern(number))
        return {"type": "image", "path": f"{name}.png"}
    if kind < 18:
        save_dicom(root / f"{name}.dcm", pattern(number), series=generate_uid())
        return {"type": "image", "path": f"{name}.dcm"}
    if kind == 18:
        save_series(root / name, number)
        return {"type": "volume", "path": name}
    save_nifti(root / f"{name}.nii", number)
    return {"type": "volume", "path": f"{name}.nii", "options": {"unit": "HU", "modality": "CT"}}


def split_of(visual: int) -> str:
    return "test" if visual % 7 == 3 else "validation" if visual % 11 == 5 else "train"


def row_of(number: int, visual: dict[str, Any] | None, split: str, patient: str) -> dict[str, Any]:
    """A question with a short answer, a report, or text alone; no answer depends on its question."""
    rng = np.random.default_rng(50_000 + number)
    words = " ".join(rng.choice(WORDS, 20))
    if visual is None:
        prompt, answer, topic = f"Summarise: {words}.", f"In short: {' '.join(rng.choice(WORDS, 8))}.", "summary"
    elif number % 2:
        prompt, answer, topic = "Describe the study.", f"There is a {words}.", "report"
    else:
        prompt, answer, topic = f"Which shape has the {rng.choice(WORDS)}?", str(rng.choice(SHAPES)), "shape"
    row: dict[str, Any] = {
        "sample_id": f"s{number}", "patient_id": patient, "study_id": patient, "source": "synthetic",
        "licence": "CC0-1.0", "split": split,
        "messages": [{"role": "user", "content": [*([visual] if visual else []), {"type": "text", "text": prompt}]}],
        "metadata": {"topic": topic},
    }  # fmt: skip
    if split == "train":
        row["messages"].append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    else:
        row["question"] = {"kind": "open", "answers": [answer], "topic": topic}
    return row


def clean_rows(root: Path, visuals: int = 400, rows: int = 1000) -> list[dict[str, Any]]:
    """Write the visuals and return the rows: two of each visual, the rest without any."""
    refs = [make_visual(root, number) for number in range(visuals)]
    made = []
    for number in range(rows):
        visual = number // 2 if number < 2 * visuals else None
        split = split_of(number % visuals if visual is None else visual)
        patient = f"p{visual}" if visual is not None else f"t{number}"
        made.append(row_of(number, None if visual is None else refs[visual], split, patient))
    return made


def write_rows(root: Path, rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """One manifest for each split; rows without one go to training."""
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "validation": [], "test": []}
    for row in rows:
        parts[row["split"]].append(row)
    for split, some in parts.items():
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    return parts
