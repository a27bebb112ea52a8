"""Small real things that several tests build on: nothing here is a mock."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pytest
import torch

from medvlm.model import Image, MedVLMForConditionalGeneration, MedVLMProcessor, Video, Volume, build_model
from medvlm.model.tokenizer import train_tokenizer

TEXTS = [
    "Is there a pleural effusion? Answer yes or no.",
    "There is a 25 mm nodule in the left upper zone. No pneumothorax. The heart is normal in size.",
    "On which side is the mass? Answer left or right.",
    "right lower zone consolidation, moderate effusion",
]


@pytest.fixture(autouse=True, scope="session")
def no_wait_for_the_disk():
    """fsync asks for a file that is open, and does not wait: what it adds shows after a power cut only, and no test
    cuts the power. A run folder is fsynced some fifteen times, at several milliseconds each. MEDVLM_FULL=1 waits, and
    so do programs that tests start.
    """
    if "MEDVLM_FULL" in os.environ:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(autouse=True)
def one_thread():
    """Tests share few cores; more threads make tiny models slower and sums differ between machines."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def processor() -> MedVLMProcessor:
    return MedVLMProcessor(
        train_tokenizer(TEXTS, 400),
        patch_size=(2, 8, 8),
        max_patches={"image": 64, "volume": 144, "video": 64},
        max_depth={"volume": 8, "video": 4},
    )


def tiny_model(processor: MedVLMProcessor, **text: object) -> MedVLMForConditionalGeneration:
    """A random model of a quarter of a million parameters that fits ``processor``."""
    torch.manual_seed(0)
    config = {
        "model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 32, "intermediate_size": 128,
    }  # fmt: skip
    vision = {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128,
        "patch_size": (2, 8, 8),
    }  # fmt: skip
    model = build_model(
        vision, {"hidden_size": 96}, {"config": {**config, **text}}, len(processor.tokenizer), processor.visual_token_id
    )
    # Weights at the usual tiny initial scale make every output alike; an equality test would then prove little.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model.eval()


@pytest.fixture
def model(processor) -> MedVLMForConditionalGeneration:
    return tiny_model(processor)


def an_image(seed: int = 0, height: int = 60, width: int = 80) -> Image:
    pixels = np.random.default_rng(seed).random((1, height, width), dtype=np.float32)
    return Image(pixels=pixels, modality="CR", unit="display", spacing_mm=(4.0, 4.0))


def a_volume(seed: int = 0, depth: int = 12) -> Volume:
    voxels = np.random.default_rng(seed).normal(-300, 400, (depth, 48, 40)).astype(np.float32)
    return Volume(voxels=voxels, modality="CT", unit="HU", spacing_mm=(8.0, 5.0, 5.0), orientation="SPL")


def a_video(seed: int = 0) -> Video:
    frames = np.random.default_rng(seed).random((6, 1, 32, 32), dtype=np.float32)
    return Video(frames=frames, times_s=np.arange(6) / 10, modality="US")


def a_chat(kinds: list[str], question: str, answer: str | None = None) -> list[dict]:
    content = [{"type": kind} for kind in kinds] + [{"type": "text", "text": question}]
    turns = [{"role": "user", "content": content}]
    return turns if answer is None else [*turns, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]


@pytest.fixture
def conversations(processor) -> list[tuple[list[dict], list]]:
    """Five conversations: 2D, 3D, video, text only, and two visuals in one; as (messages, visuals)."""
    return [
        (a_chat(["image"], "Is there a nodule?", "yes"), [an_image(1)]),
        (a_chat(["volume"], "On which side is the mass?", "left"), [a_volume(2)]),
        (a_chat(["video"], "Is there an effusion?", "no"), [a_video(3)]),
        (a_chat([], "Is there a pleural effusion?", "moderate"), []),
        (a_chat(["image", "volume"], "Which zone?", "right lower zone"), [an_image(4, 90, 40), a_volume(5, 20)]),
    ]
