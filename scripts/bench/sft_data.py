"""Samples of the SFT benchmark: a mix as of medical question answering, about pictures that are written here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pil

from medvlm.data_recipes.manifest import write_manifest
from medvlm.data_recipes.sample import Sample, Turn, VisualRef
from medvlm.scripts.bench.dpo_checkpoint import WORDS, write_checkpoint

SHARES = (0.45, 0.30, 0.15, 0.10)
"""Short questions on an image, chats on a larger one, texts, volumes that are shown as SLICES images."""
SLICES = 16


def write_start(folder: Path) -> None:
    """The checkpoint of the DPO benchmark with an encoder of two layers of 96.

    A visual token then costs the encoder a third of what it costs the decoder, as with a 0.4 B encoder before a 7 B
    decoder: the encoder is never padded, so its share is what packing cannot save.
    """
    import transformers

    write_checkpoint(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    vision = config.vision_config
    vision.depth, vision.hidden_size, vision.intermediate_size, vision.fullatt_block_indexes = 2, 96, 256, [1]
    torch.manual_seed(0)
    transformers.AutoModelForImageTextToText.from_config(config, dtype=torch.float32).save_pretrained(folder)


def write_samples(folder: Path, count: int) -> None:
    """``sft.jsonl`` and its pictures."""
    generator = np.random.default_rng(0)

    def words(least: int, most: int) -> str:
        return " ".join(generator.choice(WORDS, int(generator.integers(least, most))))

    def picture(side: int, name: str) -> VisualRef:
        pixels = generator.integers(0, 255, (side // 8, side // 8, 3), dtype=np.uint8)
        Pil.fromarray(pixels).resize((side, side), Pil.Resampling.BILINEAR).save(folder / name, compress_level=1)
        return VisualRef(kind="image", path=name)

    samples = []
    for number in range(count):
        kind = int(generator.choice(4, p=SHARES))
        shown = [
            picture(336 if kind == 1 else 224, f"{number:04d}-{slice_number:02d}.png")
            for slice_number in range((1, 1, 0, SLICES)[kind])
        ]
        question = words(*((4, 14), (20, 60), (60, 200), (10, 30))[kind])
        answer = words(*((1, 6), (60, 200), (100, 300), (40, 120))[kind])
        turns = (Turn(role="user", content=(*shown, question)), Turn(role="assistant", content=(answer,)))
        samples.append(
            Sample(
                sample_id=f"s{number:04d}",
                patient_id=f"p{number}",
                study_id=f"s{number}",
                source="bench",
                licence="CC0-1.0",
                split="train",
                turns=turns,
            )
        )
    write_manifest(folder / "sft.jsonl", samples)


def conversation(sample: Sample, folder: Path) -> dict[str, Any]:
    """A sample as TRL's prompt and completion, with its pictures opened."""
    content = sample.turns[0].content
    shown = [part for part in content if isinstance(part, VisualRef)]
    question = next(part for part in content if isinstance(part, str))
    asked = [{"type": "image"} for _ in shown] + [{"type": "text", "text": question}]
    answer = [{"type": "text", "text": sample.turns[1].content[0]}]
    return {
        "prompt": [{"role": "user", "content": asked}],
        "completion": [{"role": "assistant", "content": answer}],
        "images": [Pil.open(folder / ref.path) for ref in shown],
    }
