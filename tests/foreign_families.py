"""Tiny checkpoints of vision-language families that model.external does not serve, from the library's own classes.

Each has a tokenizer trained here with the family's special tokens, a chat template in the family's form, and the
family's own processor, saved as the library saves it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from external_families import TEXTS
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast

TEMPLATE = (
    "{{ bos_token }}{%- for m in messages %}{{ m['role'] + ': ' }}"
    "{%- for c in m['content'] %}{% if c['type'] == 'image' %}{{ 'IMAGE' }}{% else %}{{ c['text'] }}{% endif %}"
    "{%- endfor %}{{ 'END' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
END, IMAGE = "<end_of_utterance>", "<image>"
FAMILIES = ("llava", "idefics3", "qwen2_vl")
NEED_TORCHVISION = ("qwen2_vl",)
"""Whose processors also show clips, which the library does with torchvision."""

SQUARE = {"height": 32, "width": 32}
TEXT = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
    "intermediate_size": 96, "max_position_embeddings": 4096, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def tokenizer_of(family: str) -> PreTrainedTokenizerFast:
    from medvlm.model.tokenizer import train_tokenizer

    image = "<|vision_start|><|image_pad|><|vision_end|>" if family == "qwen2_vl" else IMAGE
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(TEXTS, 400)._tokenizer,
        pad_token="<|pad|>", bos_token="<s>", eos_token="</s>",
        chat_template=TEMPLATE.replace("IMAGE", image).replace("END", END),
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    special = [END, IMAGE, "<fake_token_around_image>", "<global-img>"]
    special += [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    if family == "qwen2_vl":
        special += ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_tokens(special, special_tokens=True)
    return tokenizer


def _siglip(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 8, **more,
    }  # fmt: skip


def model_of(family: str, tokenizer: PreTrainedTokenizerFast) -> Any:
    def token(text: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(text))  # type: ignore[arg-type]

    text = {**TEXT, "vocab_size": len(tokenizer)}
    if family == "llava":
        config: Any = transformers.LlavaConfig(
            text_config={"model_type": "llama", **text},
            vision_config=_siglip(model_type="clip_vision_model", projection_dim=32),
            image_token_index=token(IMAGE), vision_feature_layer=-1, image_seq_length=16,
        )  # fmt: skip
    elif family == "qwen2_vl":
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
        config = transformers.Qwen2VLConfig(
            text_config={"model_type": "qwen2_vl_text", **text, "rope_parameters": rope},
            vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "patch_size": 14},
            image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
            vision_start_token_id=token("<|vision_start|>"), vision_end_token_id=token("<|vision_end|>"),
        )  # fmt: skip
    else:
        config = transformers.Idefics3Config(
            text_config={"model_type": "llama", **text}, vision_config=_siglip(), image_token_id=token(IMAGE),
            scale_factor=2, pad_token_id=0,
        )  # fmt: skip
    return AutoModelForImageTextToText.from_config(config, dtype=torch.float32)


def processor_of(family: str, tokenizer: PreTrainedTokenizerFast) -> Any:
    template = tokenizer.chat_template
    if family == "llava":
        pictures = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=SQUARE)
        return transformers.LlavaProcessor(
            pictures, tokenizer, patch_size=8, vision_feature_select_strategy="default",
            num_additional_image_tokens=1, chat_template=template,
        )  # fmt: skip
    if family == "qwen2_vl":
        size = {"shortest_edge": 4 * 14 * 14, "longest_edge": 36 * 14 * 14}
        return transformers.Qwen2VLProcessor(
            transformers.Qwen2VLImageProcessorPil(patch_size=14, size=size), tokenizer,
            transformers.Qwen2VLVideoProcessor(patch_size=14), chat_template=template,
        )  # fmt: skip
    tiles = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    return transformers.Idefics3Processor(
        transformers.Idefics3ImageProcessorPil(**tiles), tokenizer, image_seq_len=4, chat_template=template
    )


def make_foreign(family: str, folder: Path) -> Path:
    """A plain folder of the family with random weights."""
    torch.manual_seed(0)
    tokenizer = tokenizer_of(family)
    processor = processor_of(family, tokenizer)
    model = model_of(family, processor.tokenizer)
    # Weights at the usual tiny initial scale make every output alike; an equality test would then prove little.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
