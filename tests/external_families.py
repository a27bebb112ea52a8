"""Tiny checkpoints of the vision-language families, from the library's own config classes, as plain folders.

Each has a tokenizer trained here with the family's special tokens, a chat template in the family's form, and the
family's own image processor. The templates say in few lines what the families' own templates write.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast

TEXTS = [
    "Is there a pleural effusion? Answer yes or no. On which side is the mass? left right z = 12.5 mm t = 1.0 s slice",
    "There is a 25 mm nodule in the left upper zone. No pneumothorax. The heart is normal in size. Frame1: seconds",
    "system You are a helpful assistant. user assistant model\n",
]

CHATML_PARTS = (
    "{%- for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{%- if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{%- if c['type'] == 'image' %}{{ 'IMAGE' }}{% elif c['type'] == 'video' %}{{ 'VIDEO' }}"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
IMAGES_FIRST = (
    "{%- for m in messages %}{{ '<|im_start|>' + m['role'] + ' ' }}"
    "{%- for c in m['content'] if c['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{%- for c in m['content'] if c['type'] == 'video' %}{{ '<video>\n' }}{% endfor %}"
    "{%- for c in m['content'] if c['type'] == 'text' %}{{ '\n' + c['text'] }}{% endfor %}"
    "{{- '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' }}"
    "{%- if m['content'] is string %}{{ m['content'] | trim }}{% else %}{% for c in m['content'] %}"
    "{%- if c['type'] == 'image' %}{{ '<start_of_image>' }}{% else %}{{ c['text'] | trim }}{% endif %}{% endfor %}"
    "{%- endif %}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)

TEMPLATES = {
    "qwen2_5_vl": CHATML_PARTS.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>").replace(
        "VIDEO", "<|vision_start|><|video_pad|><|vision_end|>"
    ),
    "internvl": CHATML_PARTS.replace("IMAGE", "<IMG_CONTEXT>\n").replace("VIDEO", "<video>\n"),
    "llava_onevision": IMAGES_FIRST,
    "gemma3": GEMMA,
}
TEMPLATES["qwen3_vl"] = TEMPLATES["qwen2_5_vl"]

QWEN_TOKENS = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
SPECIAL = {
    "qwen2_5_vl": QWEN_TOKENS,
    "qwen3_vl": QWEN_TOKENS,
    "internvl": ["<img>", "</img>", "<IMG_CONTEXT>", "<video>"],
    "llava_onevision": ["<image>", "<video>"],
    "gemma3": ["<bos>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<image_soft_token>", "<end_of_image>"],
}
NAMED = {
    "internvl": {
        "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    },
    "gemma3": {
        "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>",
    },
}  # fmt: skip
FAMILY_NAMES = ("qwen2_5_vl", "gemma3", "llava_onevision", "internvl", "qwen3_vl")


def tokenizer_of(family: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE with the family's special tokens and chat template."""
    from medvlm.model.tokenizer import train_tokenizer

    base = train_tokenizer(TEXTS, 400)
    named: dict[str, Any] = {"extra_special_tokens": NAMED[family]} if family in NAMED else {}
    gemma = family == "gemma3"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=base._tokenizer,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        bos_token="<bos>" if gemma else None,
        chat_template=TEMPLATES[family],
        clean_up_tokenization_spaces=False,
        **named,
    )
    tokenizer.add_tokens(SPECIAL[family], special_tokens=True)
    tokenizer.add_tokens(["<|im_start|>"], special_tokens=True)
    return tokenizer


def _text(model_type: str, size: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": model_type, "vocab_size": size, "hidden_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "intermediate_size": 96,
        "max_position_embeddings": 4096, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 2, **more,
    }  # fmt: skip


def config_of(family: str, tokenizer: PreTrainedTokenizerFast) -> Any:
    """The family's own config class, tiny."""
    size = len(tokenizer)

    def token(text: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(text))  # type: ignore[arg-type]

    if family.startswith("qwen"):
        ids = {
            "image_token_id": token("<|image_pad|>"), "video_token_id": token("<|video_pad|>"),
            "vision_start_token_id": token("<|vision_start|>"), "vision_end_token_id": token("<|vision_end|>"),
        }  # fmt: skip
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
        vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64}
        if family == "qwen2_5_vl":
            text = _text("qwen2_5_vl_text", size, rope_parameters=rope)
            vision |= {"patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1], "tokens_per_second": 2}
            return transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
        text = _text("qwen3_vl_text", size, rope_parameters={**rope, "mrope_interleaved": True})
        vision |= {"patch_size": 16, "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64}
        return transformers.Qwen3VLConfig(text_config=text, vision_config=vision, **ids)
    siglip = {
        "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    if family == "gemma3":
        text = _text("gemma3_text", size, sliding_window=64, layer_types=["sliding_attention", "full_attention"])
        return transformers.Gemma3Config(
            text_config=text, vision_config=siglip, mm_tokens_per_image=4, boi_token_index=token("<start_of_image>"),
            eoi_token_index=token("<end_of_image>"), image_token_index=token("<image_soft_token>"),
        )  # fmt: skip
    if family == "llava_onevision":
        return transformers.LlavaOnevisionConfig(
            text_config=_text("qwen2", size), vision_config={**siglip, "vision_use_head": False},
            image_token_index=token("<image>"), video_token_index=token("<video>"),
            image_grid_pinpoints=[[32, 32], [32, 64], [64, 32], [64, 64]],
        )  # fmt: skip
    return transformers.InternVLConfig(
        text_config=_text("qwen2", size),
        vision_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": [32, 32], "patch_size": [8, 8],
        },
        image_token_id=token("<IMG_CONTEXT>"), image_seq_length=4,
    )  # fmt: skip


def image_processor_of(family: str) -> Any:
    """The family's own, on Pillow, small."""
    square = {"height": 32, "width": 32}
    if family.startswith("qwen"):
        patch = 14 if family == "qwen2_5_vl" else 16
        size = {"shortest_edge": 4 * patch * patch, "longest_edge": 36 * patch * patch}
        return transformers.Qwen2VLImageProcessorPil(patch_size=patch, size=size)
    if family == "gemma3":
        return transformers.Gemma3ImageProcessorPil(size=square)
    if family == "llava_onevision":
        return transformers.LlavaOnevisionImageProcessorPil(
            size=square, image_grid_pinpoints=[[32, 32], [32, 64], [64, 32], [64, 64]]
        )
    return transformers.GotOcr2ImageProcessorPil(size=square, max_patches=4)


def make_checkpoint(family: str, folder: Path) -> Path:
    """A plain folder of the family with random weights."""
    torch.manual_seed(0)
    tokenizer = tokenizer_of(family)
    model = AutoModelForImageTextToText.from_config(config_of(family, tokenizer), dtype=torch.float32)
    # Weights at the usual tiny initial scale make every output alike; an equality test would then prove little.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor_of(family).save_pretrained(folder)
    names = {"gemma3": {"image_seq_length": 4}, "internvl": {"image_seq_length": 4}}
    extra = {"processor_class": type(model).__name__.replace("ForConditionalGeneration", "Processor")}
    if family == "llava_onevision":
        extra |= {"num_image_tokens": 16, "vision_feature_select_strategy": "full"}  # type: ignore[dict-item]
    (folder / "processor_config.json").write_text(json.dumps({**extra, **names.get(family, {})}))
    return folder
