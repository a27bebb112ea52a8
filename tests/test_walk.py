"""The walk of one sample: a DICOM series on disk, a Sample, a loss, one update, an answer, a score."""

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from conftest import tiny_model
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medvlm.data_recipes.packing import collate
from medvlm.data_recipes.rendering import Renderer
from medvlm.data_recipes.sample import Question, Sample, Turn, VisualRef, from_json, to_json
from medvlm.eval.loaded_model import CheckpointModel
from medvlm.eval.run import Settings, evaluate
from medvlm.model import save_checkpoint
from medvlm.train.engine import make_engine
from medvlm.train.objectives.supervised import Supervised
from medvlm.train.optim import parameter_groups
from medvlm.train.settings.engine import EngineConfig

SLICES, SIDE = 10, 32
QUESTION, ANSWER = "On which side is the mass? Answer left or right.", "left"


def write_series(folder: Path) -> None:
    """A chest of air with a mass on the patient's left, stored out of order, as scanners do."""
    folder.mkdir()
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    for k in np.random.default_rng(0).permutation(SLICES).tolist():
        hounsfield = np.full((SIDE, SIDE), -800.0)
        if 3 <= k <= 6:
            hounsfield[12:20, 20:28] = 60.0  # columns run to the patient's left
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        slice_ = pydicom.Dataset()
        slice_.file_meta = meta
        slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        slice_.SeriesInstanceUID, slice_.StudyInstanceUID, slice_.FrameOfReferenceUID = series, study, frame
        slice_.Modality, slice_.PatientID, slice_.InstanceNumber = "CT", "p0", k + 1
        slice_.ImageOrientationPatient, slice_.PixelSpacing = [1, 0, 0, 0, 1, 0], [8.0, 8.0]
        slice_.ImagePositionPatient = [-124.0, -124.0, 6.0 * k]
        slice_.Rows = slice_.Columns = SIDE
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 12, 11, 0
        slice_.RescaleSlope, slice_.RescaleIntercept, slice_.RescaleType = 1, -1024, "HU"
        slice_.PixelData = (hounsfield + 1024).astype("<u2").tobytes()
        slice_.save_as(folder / f"{k * 7919 % 101:03d}.dcm", enforce_file_format=True)


def a_sample(split: str, *turns: Turn, question: Question | None = None) -> Sample:
    return Sample(
        sample_id=f"walk-{split}", patient_id="p0", study_id="s0", source="walk", licence="CC0-1.0", split=split,
        turns=turns, question=question, metadata={"modality": "CT"},
    )  # fmt: skip


def test_the_walk_of_one_sample(tmp_path, processor):
    write_series(tmp_path / "series")
    asked = Turn(role="user", content=(VisualRef(kind="volume", path="series"), QUESTION))
    said = Turn(role="assistant", content=(ANSWER,))
    row = json.loads(json.dumps(to_json(a_sample("train", asked, said))))
    sample = from_json(row, where="train.jsonl:1")

    # disk -> voxels in HU -> patches and tokens -> a pack
    renderer = Renderer(processor, tmp_path)
    (rendered,) = renderer.sides(sample)
    (visual,) = rendered.visuals
    voxels = [g * p for g, p in zip(visual.grid, processor.patch_size, strict=True)]
    extent = [v * s for v, s in zip(voxels, visual.spacing, strict=True)]
    assert extent == pytest.approx([SLICES * 6.0, SIDE * 8.0, SIDE * 8.0])
    pack = collate([(sample.sample_id, [rendered])])
    pack.check(visual_token_id=processor.visual_token_id)
    spoken = pack.targets[pack.targets >= 0].tolist()
    assert processor.tokenizer.decode(spoken) == f"{ANSWER}<|im_end|>"

    # pack -> loss -> updates
    model = tiny_model(processor)
    rates = {"vision": 1e-3, "projector": 1e-3, "text": 1e-3}
    groups = parameter_groups(model.named_parameters(), lambda name: name.split(".")[0], rates, 0.0)
    engine = make_engine(EngineConfig(device="cpu"), model.train(), groups)
    objective, losses = Supervised(), []
    for _ in range(40):
        loss = objective(engine.model, pack.to(engine.device)).total / objective.count(pack)
        engine.backward(loss, last=True)
        engine.step({group["name"]: group["lr"] for group in groups})
        losses.append(loss.item())
    engine.close()
    assert losses[1] < losses[0] and losses[-1] < 0.2

    # checkpoint -> the same question in a test split -> answer -> score
    save_checkpoint(tmp_path / "checkpoint", model.eval(), processor)
    question = Question(kind="closed", answers=(ANSWER,), choices=("left", "right"), topic="side")
    test = to_json(a_sample("test", asked, question=question))
    (tmp_path / "test.jsonl").write_text(json.dumps(test) + "\n", encoding="utf-8")
    metrics = evaluate(
        CheckpointModel(str(tmp_path / "checkpoint")), [tmp_path / "test.jsonl"], tmp_path / "evaluation",
        Settings(conditions=("image",), max_new_tokens=8), gallery_size=1,
    )  # fmt: skip
    assert metrics["headline"]["closed_accuracy_3d"] == 1.0 and metrics["headline"]["side_accuracy_3d"] == 1.0
    assert "side" in (tmp_path / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert torch.isfinite(pack.patches).all()
