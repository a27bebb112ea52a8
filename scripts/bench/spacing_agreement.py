"""Does the same lesion keep its size when its scan has another spacing? Positions in millimetres against indices.

    python -m medvlm.scripts.bench.spacing_agreement --out runs/spacing

Two models with equal weights, data and order learn to say the diameter of a ball in millimetres, in steps of 5. One is
told the spacing of each volume, so that its rotary positions are millimetres; for the other spacing is taken away, as a
loader does that resamples any scan to one grid, and its positions are voxel indices. In training, spacing (0.6 to 3 mm)
and number of voxels (16 to 40 along each axis) are drawn for each volume, so that the ball's extent in voxels, or as a
part of the field of view, tells its size only as far as a large ball needs room (correlation about 0.6 and 0.5). In the
test each ball, in its field of view of 40 mm, is scanned at three spacings: the three answers should be the same.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from medvlm.data_recipes.packing import collate
from medvlm.model.batch import PackedBatch
from medvlm.model.loading import build_model
from medvlm.model.medvlm import MedVLMForConditionalGeneration
from medvlm.model.processing import MedVLMProcessor
from medvlm.model.tokenizer import train_tokenizer
from medvlm.model.visual import Volume
from medvlm.train.objectives.supervised import Supervised
from medvlm.train.optim import learning_rate_at
from medvlm.train.randomness import seed_everything

PATCH, COUNTS = 8, (16, 24, 32, 40)
SPACING_MM = (0.6, 3.0)
SIZES_MM = (5, 10, 15, 20, 25, 30)
TEST_FIELD_MM, TEST_VOXELS, TEST_SIZES_MM = 40.0, (40, 24, 16), (10, 15, 20, 25, 30)
TEST_SPACINGS_MM = tuple(TEST_FIELD_MM / voxels for voxels in TEST_VOXELS)
LUNG_HU, LESION_HU, NOISE_HU = -850.0, 40.0, 30.0
QUESTION = "What is the diameter of the lesion?"
ARMS = ("millimetres", "index")


@dataclass(frozen=True, kw_only=True)
class Ball:
    """A lesion in a cube of air-filled lung: diameter and centre (z, y, x) in millimetres, field of view alike."""

    size_mm: int
    centre_mm: tuple[float, float, float]
    field_mm: float


def draw_ball(field_mm: float, sizes: Sequence[int], rng: np.random.Generator) -> Ball:
    """A ball of one of ``sizes``, all of it in the field of view."""
    size = int(rng.choice(sizes))
    z, y, x = rng.uniform(size / 2, field_mm - size / 2, 3)
    return Ball(size_mm=size, centre_mm=(float(z), float(y), float(x)), field_mm=field_mm)


def scan(ball: Ball, voxels: int, rng: np.random.Generator) -> Volume:
    """``ball`` on ``voxels`` cubic voxels along each axis; blur and noise are of the voxel: neither tells mm."""
    step = ball.field_mm / voxels
    at = (np.arange(voxels, dtype=np.float32) + 0.5) * step
    dz, dy, dx = (at - centre for centre in ball.centre_mm)
    distance = np.sqrt(dz[:, None, None] ** 2 + dy[None, :, None] ** 2 + dx[None, None, :] ** 2)
    inside = ((ball.size_mm / 2 - distance) / step + 0.5).clip(0, 1)
    hu = LUNG_HU + (LESION_HU - LUNG_HU) * inside + NOISE_HU * rng.standard_normal(inside.shape, dtype=np.float32)
    return Volume(
        voxels=hu.astype(np.float32), modality="CT", unit="HU", spacing_mm=(step, step, step), orientation="SPL"
    )


def training_scan(rng: np.random.Generator) -> tuple[Volume, int]:
    """A volume and the diameter in it: 2.5 voxels at least, four fifths of the field of view at most."""
    while True:
        spacing = float(np.exp(rng.uniform(*np.log(SPACING_MM))))
        voxels = int(rng.choice(COUNTS))
        sizes = [size for size in SIZES_MM if 2.5 * spacing <= size <= 0.8 * voxels * spacing]
        if sizes:
            ball = draw_ball(voxels * spacing, sizes, rng)
            return scan(ball, voxels, rng), ball.size_mm


def messages(size_mm: int | None) -> list[dict[str, Any]]:
    """The question, and the answer when there is one."""
    question = [{"type": "volume"}, {"type": "text", "text": QUESTION}]
    turns: list[dict[str, Any]] = [{"role": "user", "content": question}]
    if size_mm is not None:
        turns.append({"role": "assistant", "content": [{"type": "text", "text": f"{size_mm} mm"}]})
    return turns


def as_seen(volume: Volume, arm: str) -> Volume:
    """The volume with its spacing, or without it."""
    return volume if arm == "millimetres" else replace(volume, spacing_mm=None)


def build(arm_seed: int, width: int) -> tuple[MedVLMForConditionalGeneration, MedVLMProcessor]:
    """A small model; equal weights for equal seeds."""
    seed_everything(arm_seed)
    tokenizer = train_tokenizer([QUESTION, *(f"{n} mm" for n in range(100))], 300)
    processor = MedVLMProcessor(
        tokenizer, patch_size=(PATCH, PATCH, PATCH), merge=(1, 1, 1),
        max_patches={"volume": (max(COUNTS) // PATCH) ** 3},
    )  # fmt: skip
    vision = {
        "hidden_size": width, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 3 * width,
        "patch_size": [PATCH] * 3, "rotary_wavelengths_mm": [30.0, 600.0], "initializer_range": 0.06,
    }  # fmt: skip
    text = {
        "model_type": "qwen3", "hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": width // 2, "intermediate_size": 3 * width,
        "max_position_embeddings": 1024, "tie_word_embeddings": True, "initializer_range": 0.06,
    }  # fmt: skip
    model = build_model(
        vision, {"hidden_size": width, "merge": [1, 1, 1]}, {"config": text}, len(tokenizer), processor.visual_token_id
    )
    return model, processor


def training_pack(processor: MedVLMProcessor, arm: str, step: int, settings: Settings) -> PackedBatch:
    """The volumes of one step: the same for both arms."""
    rng = np.random.default_rng([settings.seed, 1, step])
    sides = []
    for number in range(settings.batch):
        volume, size = training_scan(rng)
        sides.append((f"{step}-{number}", (processor.render(messages(size), [processor.patch(as_seen(volume, arm))]),)))
    return collate(sides)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one run is."""

    steps: int = 2000
    batch: int = 24
    width: int = 96
    learning_rate: float = 1e-3
    test_balls: int = 100
    seed: int = 0
    threads: int = 1


def train(arm: str, settings: Settings) -> tuple[MedVLMForConditionalGeneration, MedVLMProcessor]:
    """The trained model of one arm."""
    model, processor = build(settings.seed, settings.width)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    objective, losses = Supervised(), []
    for step in range(settings.steps):
        factor = learning_rate_at(
            step, schedule="cosine", total_steps=settings.steps, warmup_steps=min(50, settings.steps // 2),
            minimum_ratio=0.02,
        )  # fmt: skip
        optimizer.param_groups[0]["lr"] = settings.learning_rate * factor
        pack = training_pack(processor, arm, step, settings)
        loss = objective(model.train(), pack).total / objective.count(pack)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            said = f"{arm}: step {step + 1} of {settings.steps}, mean loss of the last 100 {np.mean(losses[-100:]):.3f}"
            print(said, file=sys.stderr, flush=True)
    return model.eval(), processor


def answers(
    model: MedVLMForConditionalGeneration, processor: MedVLMProcessor, arm: str, settings: Settings
) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) what the model says of N balls at three spacings, NaN when it is no size, and (N,) what is true; mm."""
    rng = np.random.default_rng([settings.seed, 2])
    said, true = [], []
    for _ in range(settings.test_balls):
        ball = draw_ball(TEST_FIELD_MM, TEST_SIZES_MM, rng)
        volumes = [as_seen(scan(ball, voxels, rng), arm) for voxels in TEST_VOXELS]
        inputs = processor(messages=[messages(None)] * len(volumes), visuals=[[volume] for volume in volumes])
        with torch.inference_mode():
            ids = model.generate(  # type: ignore[misc]
                **inputs, max_new_tokens=6, do_sample=False, eos_token_id=sorted(processor.end_ids),
                pad_token_id=processor.tokenizer.pad_token_id,
            )  # fmt: skip
        texts = processor.tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        found = [re.fullmatch(r"\s*(\d+) mm\s*", text) for text in texts]
        said.append([float(match[1]) if match else math.nan for match in found])
        true.append(ball.size_mm)
    return np.array(said), np.array(true, dtype=float)


def measure(said: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """The row of one arm; answers that are no size are counted and left out of the rest."""
    whole = np.isfinite(said).all(axis=1)
    kept, truth = said[whole], true[whole]
    spread = kept.max(axis=1) - kept.min(axis=1) if len(kept) else np.zeros(0)
    slopes = [float(np.polyfit(truth, column, 1)[0]) for column in kept.T] if len(kept) > 1 else []
    return {
        "balls": len(said),
        "no_size": int((~whole).sum()),
        "mean_spread_mm": _mean(spread),
        "share_equal": _mean(spread == 0),
        "share_within_5_mm": _mean(spread <= 5),
        "mean_absolute_error_mm": _mean(np.abs(kept - truth[:, None])),
        "mean_error_mm": [_mean(column - truth) for column in kept.T],
        "slope": slopes,
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan


def run_arm(arm: str, settings: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train and ask one arm: its row of the table, and every answer."""
    torch.set_num_threads(settings.threads)
    began = time.perf_counter()
    model, processor = train(arm, settings)
    seconds = time.perf_counter() - began
    said, true = answers(model, processor, arm, settings)
    return measure(said, true) | {"training_seconds": round(seconds, 1)}, {"said": said.tolist(), "true": true.tolist()}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Markdown, one row an arm."""
    spacings = ", ".join(f"{s:.2g}" for s in TEST_SPACINGS_MM)
    lines = [
        f"| positions | spread of the three answers (mm) | all three equal | within 5 mm | mean absolute error (mm) | "
        f"mean error at {spacings} mm | no size said |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, row in rows.items():
        errors = ", ".join(f"{e:+.1f}" for e in row["mean_error_mm"])
        lines.append(
            f"| {arm} | {row['mean_spread_mm']:.2f} | {row['share_equal']:.0%} | {row['share_within_5_mm']:.0%} | "
            f"{row['mean_absolute_error_mm']:.2f} | {errors} | {row['no_size']}/{row['balls']} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Train both arms, ask, print the table, and write ``spacing_agreement.json`` and ``.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    given = vars(parser.parse_args(arguments))
    out: Path = given.pop("out")
    settings = Settings(**given)
    with ProcessPoolExecutor(len(ARMS), mp_context=get_context("spawn")) as pool:
        results = dict(zip(ARMS, pool.map(run_arm, ARMS, [settings] * len(ARMS)), strict=True))
    rows = {arm: row for arm, (row, _) in results.items()}
    raw = {arm: answered for arm, (_, answered) in results.items()}
    report = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, {settings.threads} thread(s) for each of two arms",
        "versions": {
            "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
        },
        "settings": asdict(settings),
        "parameters": sum(p.numel() for p in build(settings.seed, settings.width)[0].parameters()),
        "rows": rows,
        "answers": raw,
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    for name, text in (("json", json.dumps(report, indent=1)), ("md", table(rows) + "\n")):
        temporary = out / f".spacing_agreement.{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(out / f"spacing_agreement.{name}")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
