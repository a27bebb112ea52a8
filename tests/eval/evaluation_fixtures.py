"""Manifests with real files for the evaluation tests: pictures, volumes and clips of eight patients."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
from PIL import Image as Pil

from medvlm.data_recipes.sample import Question, Sample, Turn, VisualRef, to_json

REPORTS = {
    "left": "Findings: There is a 25 mm nodule in the left upper zone. No pneumothorax. Impression: Left nodule.",
    "right": "Findings: There is a 25 mm nodule in the right upper zone. No pneumothorax. Impression: Right nodule.",
}


def visual_of(patient: int, kind: str) -> VisualRef:
    match kind:
        case "image":
            return VisualRef(kind="image", path=f"{patient}.png")
        case "volume":
            options = {"unit": "HU", "spacing_mm": [8.0, 4.0, 4.0], "orientation": "SPL", "modality": "CT"}
            return VisualRef(kind="volume", path=f"{patient}.npy", options=options)
    return VisualRef(kind="video", path=f"{patient}.mp4")


def write_visuals(folder: Path, patients: int) -> None:
    """One picture, one volume and one clip per patient, all different."""
    for patient in range(patients):
        generator = np.random.default_rng(patient)
        Pil.fromarray(generator.integers(0, 255, (24, 32), dtype=np.uint8)).save(folder / f"{patient}.png")
        np.save(folder / f"{patient}.npy", generator.normal(-400, 300, (8, 16, 16)).astype(np.float32))
        with av.open(str(folder / f"{patient}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            for _ in range(4):
                frame = av.VideoFrame.from_ndarray(generator.integers(0, 255, (32, 32, 3), dtype=np.uint8), "rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())


def a_sample(patient: int, kind: str, name: str, text: str, question: Question, shown: bool = True) -> Sample:
    content = (visual_of(patient, kind), text) if shown else (text,)
    return Sample(
        sample_id=f"{patient}-{kind}-{name}",
        patient_id=f"p{patient}",
        study_id=f"s{patient}",
        source="fixture",
        licence="CC0-1.0",
        split="test",
        turns=(Turn(role="user", content=content),),
        question=question,
        metadata={"modality": kind},
    )


def samples_of(patient: int, kinds: tuple[str, ...] = ("image", "volume", "video")) -> list[Sample]:
    """Per kind of visual: presence (yes for even patients), side, zone with letters, size, report."""
    side, there = ("left", "right")[patient % 2], ("yes", "no")[patient % 2]
    zones = "In which zone?\nA. upper\nB. lower\nC. middle\nAnswer with the letter."
    presence = Question(kind="closed", answers=(there,), choices=("yes", "no"), topic="presence")
    asked = [
        ("presence", "Is there a nodule?", presence),
        ("side", "On which side?", Question(kind="closed", answers=(side,), choices=("left", "right"), topic="side")),
        ("zone", zones, Question(kind="choice", answers=("A",), choices=("A", "B", "C"), topic="zone")),
        ("size", "How large?", Question(kind="open", answers=("25 mm",), topic="size")),
        ("report", "Write the report.", Question(kind="report", answers=(REPORTS[side],), topic="report")),
    ]
    return [a_sample(patient, kind, name, text, question) for kind in kinds for name, text, question in asked]


def write_manifest(path: Path, samples: list[Sample]) -> Path:
    path.write_text("".join(json.dumps(to_json(sample)) + "\n" for sample in samples), encoding="utf-8")
    return path
