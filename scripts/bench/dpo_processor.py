"""The processor that TRL's collator is given: that of Qwen2.5-VL without clips, so that torchvision is not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BatchFeature, ProcessorMixin, Qwen2VLImageProcessorPil

PLACEHOLDER = "<|image_pad|>"


class PicturesProcessor(ProcessorMixin):
    """Does with pictures what transformers' Qwen2_5_VLProcessor does: the same image processor (on Pillow), the same
    placeholders, the same marks of visual tokens."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.image_token = PLACEHOLDER

    def __call__(self, images: Any = None, text: Any = None, **options: Any) -> BatchFeature:  # type: ignore[override]
        pictures: dict[str, Any] = {}
        texts = list(text)
        if images is not None:
            flat = [image.convert("RGB") for row in images for image in row]
            pictures = dict(self.image_processor(images=flat, return_tensors="pt"))
            counts = iter((pictures["image_grid_thw"].prod(dim=1) // self.image_processor.merge_size**2).tolist())
            for number, row in enumerate(images):
                for _ in row:
                    texts[number] = texts[number].replace(PLACEHOLDER, "\0" * next(counts), 1)
            texts = [one.replace("\0", PLACEHOLDER) for one in texts]
        inputs = self.tokenizer(texts, **options)
        marks = (inputs["input_ids"] == self.tokenizer.convert_tokens_to_ids(PLACEHOLDER)).to(torch.int64)
        return BatchFeature({**inputs, **pictures, "mm_token_type_ids": marks})


def pictures_processor(start: Path) -> PicturesProcessor:
    """With the tokenizer and image processor of a checkpoint folder."""
    tokenizer = AutoTokenizer.from_pretrained(start)
    return PicturesProcessor(
        Qwen2VLImageProcessorPil.from_pretrained(start), tokenizer, chat_template=tokenizer.chat_template
    )
