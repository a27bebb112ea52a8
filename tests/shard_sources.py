"""Manifests with visuals of every kind, written with real libraries, for the tests of shards."""

from __future__ import annotations

import json
from pathlib import Path

import av
import nibabel
import numpy as np
import PIL.Image

from medvlm.data_recipes.manifest import sha256_of


def row(number: int, visuals: list[dict], *, split: str = "train", **more) -> dict:
    """A training row that shows ``visuals``."""
    question = {"type": "text", "text": f"What is shown in number {number}, a röntgen?"}
    return {
        "sample_id": f"s/{number}", "patient_id": f"s/p{number}", "study_id": f"s/p{number}", "source": "s",
        "licence": "CC0-1.0", "split": split,
        "messages": [
            {"role": "user", "content": [*visuals, question]},
            {"role": "assistant", "content": [{"type": "text", "text": f"answer {number}"}]},
        ],
        **more,
    }  # fmt: skip


def write_rows(path: Path, rows: list[dict | str]) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r, ensure_ascii=False)) + "\n" for r in rows))
    return path


def grey_png(path: Path, seed: int = 0, size: tuple[int, int] = (60, 80)) -> None:
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, size, np.uint8)).save(path)


def colour_jpeg(path: Path, seed: int = 0) -> None:
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)).save(path)


def deep_png(path: Path) -> None:
    values = np.random.default_rng(3).integers(0, 4096, (64, 48), np.uint16)
    PIL.Image.fromarray(values).save(path)


def ct_nifti(path: Path, seed: int = 0, shape: tuple[int, int, int] = (24, 20, 12)) -> None:
    """Whole HU; 0.8 x 0.8 x 2.5 mm."""
    values = np.random.default_rng(seed).integers(-1000, 1500, shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-0.8, -0.8, 2.5, 1.0])), path)


def clip(path: Path, frames: int = 20) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            picture = np.full((48, 64, 3), number * 12, np.uint8)
            picture[10:30, number : number + 20] = 255 - number * 12
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def picture_set(folder: Path, count: int, *, size: tuple[int, int] = (60, 80)) -> Path:
    """A manifest of ``count`` rows with one grey PNG each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict | str] = []
    for number in range(count):
        grey_png(folder / f"{number}.png", number, size)
        rows.append(row(number, [{"type": "image", "path": f"{number}.png", "options": {"modality": "CR"}}]))
    return write_rows(folder / "train.jsonl", rows)


def mixed_set(folder: Path) -> Path:
    """13 good rows of every kind, 4 bad ones among them, and a blank line."""
    folder.mkdir(parents=True, exist_ok=True)
    grey_png(folder / "grey.png")
    grey_png(folder / "small.png", 1, (20, 24))
    colour_jpeg(folder / "colour.jpg")
    deep_png(folder / "deep.png")
    ct_nifti(folder / "ct.nii.gz")
    ct_nifti(folder / "ct.nii", 4)
    np.save(folder / "pet.npy", np.random.default_rng(5).gamma(2.0, 1.5, (10, 30, 30)).astype(np.float32))
    clip(folder / "clip.mp4")
    (folder / "torn.png").write_bytes((folder / "grey.png").read_bytes()[:900])
    ct = {"type": "volume", "path": "ct.nii.gz", "options": {"unit": "HU", "modality": "CT"}}
    grey = {"type": "image", "path": "grey.png", "options": {"modality": "CR", "spacing_mm": [2.0, 1.5]}}
    pet = {"modality": "PT", "unit": "SUV", "spacing_mm": [4, 2, 2], "orientation": "SPL"}
    side = [{"role": "user", "content": [{"type": "image", "path": "small.png"}, {"type": "text", "text": "And?"}]}]
    answer = [{"role": "assistant", "content": "A nodule."}]
    asked = row(12, [ct])["messages"][:1]
    rows: list[dict | str] = [
        row(0, [{**grey, "sha256": sha256_of(folder / "grey.png")}]),
        row(1, [{"type": "image", "path": "colour.jpg"}]),
        row(2, [ct]),
        "not json",
        row(3, [{**ct, "path": "ct.nii"}, {"type": "image", "path": "deep.png"}]),
        row(4, [{"type": "volume", "path": "pet.npy", "options": pet}]),
        row(5, [{"type": "image", "path": "missing.png"}]),
        "",
        row(6, [{"type": "video", "path": "clip.mp4", "options": {"modality": "US", "spacing_mm": [0.5, 0.5]}}]),
        row(7, []),
        row(8, [{"type": "image", "path": "torn.png"}]),
        row(9, [grey, grey]),
        row(10, [{"type": "image", "path": "small.png"}]),
        row(11, [{**grey, "sha256": "0" * 64}]),
        {
            **row(12, [ct]), "messages": asked,
            "preference": {"chosen": answer, "rejected": [*side, {"role": "assistant", "content": "No nodule."}],
                           "made_by": "negation"},
        },
        row(13, [{"type": "video", "path": "clip.mp4", "options": {"max_frames": 3}}]),
        row(14, [{"type": "image", "path": str(folder / "grey.png")}], metadata={"modality": "CR"}),
    ]  # fmt: skip
    return write_rows(folder / "train.jsonl", rows)
