"""The families' whole processors, which need torchvision: the same ids and logits for images and clips, and folders
that AutoProcessor loads."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from conftest import a_chat
from external_families import make_checkpoint
from transformers import AutoModelForImageTextToText, AutoProcessor

from medvlm.data_recipes.packing import collate
from medvlm.model import Image, Video, load_checkpoint, save_checkpoint
from medvlm.model.external.processing import ExternalProcessor

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="processors with clips need torchvision"
)
FAMILIES = ("qwen2_5_vl", "llava_onevision", "internvl", "qwen3_vl")
EDGE = {"qwen2_5_vl": 56, "qwen3_vl": 64, "llava_onevision": 32, "internvl": 32}


def whole_processor(family: str, ours: ExternalProcessor) -> Any:
    images, tokenizer = ours.image_processor, ours.tokenizer
    if family.startswith("qwen"):
        size = {"shortest_edge": 1024, "longest_edge": 10**6}
        name = "Qwen2VLVideoProcessor" if family == "qwen2_5_vl" else "Qwen3VLVideoProcessor"
        videos = getattr(transformers, name)(patch_size=images.patch_size, size=size)
        whole = "Qwen2_5_VLProcessor" if family == "qwen2_5_vl" else "Qwen3VLProcessor"
        kind, more = getattr(transformers, whole), {}
    elif family == "internvl":
        videos = transformers.InternVLVideoProcessor(size={"height": 32, "width": 32})
        kind, more = transformers.InternVLProcessor, {"image_seq_length": 4}
    else:
        videos = transformers.LlavaOnevisionVideoProcessor(size={"height": 32, "width": 32})
        kind = transformers.LlavaOnevisionProcessor
        more = {"num_image_tokens": 16, "vision_feature_select_strategy": "full"}
    for attribute in ("image_mean", "image_std"):
        setattr(videos, attribute, getattr(images, attribute))
    return kind(images, tokenizer, videos, chat_template=tokenizer.chat_template, **more)


@pytest.fixture(params=FAMILIES)
def made(request, tmp_path) -> tuple[str, Path]:
    """(family, a folder as the library saves model and processor)."""
    folder = make_checkpoint(request.param, tmp_path / "bare")
    model, ours = load_checkpoint(folder)
    whole = whole_processor(request.param, ours)
    model.save_pretrained(tmp_path / "whole")
    whole.save_pretrained(tmp_path / "whole")
    return request.param, tmp_path / "whole"


def ours_of(folder: Path, kind: str, visual: Any) -> tuple[torch.Tensor, torch.Tensor]:
    model, processor = load_checkpoint(folder)
    rendered = processor.render(a_chat([kind], "Is it left?", "yes"), [processor.patch(visual)])
    with torch.no_grad():
        return torch.from_numpy(rendered.tokens), model(**collate([("x", [rendered])]).model_inputs()).logits[0]


def theirs_of(folder: Path, family: str, kind: str, **visuals: Any) -> tuple[torch.Tensor, torch.Tensor]:
    _, ours = load_checkpoint(folder)
    whole = whole_processor(family, ours)
    text = whole.apply_chat_template(a_chat([kind], "Is it left?", "yes"), tokenize=False)
    if family == "qwen3_vl" and kind == "video":
        # The library (seen in 5.23) writes the frames, which have their own vision tokens, inside the template's pair.
        text = text.replace("<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>")
    inputs = whole(text=[text], return_tensors="pt", add_special_tokens=False, **visuals)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        inputs.pop("video_metadata", None)
        return inputs["input_ids"][0], model(**inputs).logits[0]


def test_an_image(made):
    family, folder = made
    pixels = np.random.default_rng(0).integers(0, 255, (3, 50, 90), dtype=np.uint8)
    visual = Image(pixels=(pixels / 255).astype(np.float32), modality="XC", unit="display")
    ids, logits = ours_of(folder, "image", visual)
    expected_ids, expected = theirs_of(folder, family, "image", images=[pixels.transpose(1, 2, 0)])
    assert ids.tolist() == expected_ids.tolist()
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_a_clip_of_the_right_size(made):
    """Frames that need no resizing: Pillow and torchvision resize a little differently."""
    family, folder = made
    edge = EDGE[family]
    frames = np.random.default_rng(1).integers(0, 255, (4, 3, edge, edge), dtype=np.uint8)
    clip = Video(frames=(frames / 255).astype(np.float32), times_s=np.arange(4) / 2, modality="US")
    ids, logits = ours_of(folder, "video", clip)
    metadata = transformers.video_utils.VideoMetadata(total_num_frames=4, fps=2.0, frames_indices=[0, 1, 2, 3])
    expected_ids, expected = theirs_of(
        folder, family, "video", videos=[torch.from_numpy(frames)], do_sample_frames=False, video_metadata=[metadata]
    )
    config = load_checkpoint(folder)[0].config
    swapped = torch.where(expected_ids == getattr(config, "video_token_id", -1), config.image_token_id, expected_ids)
    assert ids.tolist() == swapped.tolist()
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_a_saved_folder_loads_with_auto_processor(made, tmp_path):
    _, folder = made
    save_checkpoint(tmp_path / "again", *load_checkpoint(folder))
    assert type(AutoProcessor.from_pretrained(tmp_path / "again")) is type(AutoProcessor.from_pretrained(folder))
