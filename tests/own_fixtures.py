"""Files of a user's own, for the tests of data_recipes/own: nothing here comes from a dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import read_manifest, verify
from medvlm.data_recipes.own.pipeline import build
from medvlm.data_recipes.own.settings import load_filled
from medvlm.data_recipes.sample import Part, Sample


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16), dtype=np.uint8)).save(path)
    return path


def dicom(
    path: Path, *, patient: str = "raw-id-7", study: str = "1.2.9", series: str, accession: str = "", place: float = 0
) -> None:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2")
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.PatientID, data.PatientName, data.Modality = patient, "Doe^Jane", "CT"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.AccessionNumber = study, series, accession
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.Rows = data.Columns = 16
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.PixelSpacing, data.ImageOrientationPatient = [1, 1], [1, 0, 0, 0, 1, 0]
    data.ImagePositionPatient = [0, 0, place]
    pixels = np.random.default_rng(int(place)).integers(0, 2000, (16, 16)).astype(np.int16)
    data.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def recipe(folder: Path, **fields: Any) -> Path:
    """A recipe in ``folder`` of which nothing is left open; every row is a patient and belongs to train."""
    path = folder / "recipe.yaml"
    given = {"name": "mine", "licence": "own", "patient": {"row": True}, "split": {"all": "train"}, **fields}
    path.write_text(yaml.safe_dump(given, sort_keys=False))
    return path


def built(folder: Path, **fields: Any) -> tuple[list[Sample], list[str]]:
    """The samples of all manifests, and "row: reason. Mend: mend" of what was refused; the manifests verify."""
    out = folder / "out"
    build(load_filled(recipe(folder, **fields)), out)
    return read_back(out)


def read_back(out: Path) -> tuple[list[Sample], list[str]]:
    manifests = sorted(path for path in out.glob("*.jsonl") if path.name != "quarantine.jsonl")
    assert verify(*manifests, hashes=True) == []
    samples = [sample for path in manifests for sample in read_manifest(path)[0]]
    told = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    bad = [BadSample(row["reason"], where=row["where"], mend=row["mend"]) for row in told]
    return samples, [str(one).removeprefix(f"{out.parent}/") for one in bad]


def said(sample: Sample) -> list[tuple[str, list[str]]]:
    """(role, parts) of every turn; a visual is "<kind name>"."""

    def spoken(part: Part) -> str:
        return part if isinstance(part, str) else f"<{part.kind} {Path(part.path).name}>"

    return [(turn.role, [spoken(part) for part in turn.content]) for turn in sample.turns]
