"""What both contenders of the DPO benchmark train: a small Qwen2.5-VL with random weights, and pairs about pictures."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pil

from medvlm.data_recipes.manifest import write_manifest
from medvlm.data_recipes.sample import Preference, Sample, Turn, VisualRef
from medvlm.model.tokenizer import train_tokenizer

SIZES = ((224, 224), (336, 336), (448, 448))
"""Height and width of the pictures in turn: 64, 144 and 256 visual tokens."""

TEXT = """
    no there is a the of in left right upper lower zone lobe small large mild moderate pleural effusion nodule mass
    opacity consolidation heart size normal enlarged mediastinum contours within limits pneumothorax fracture acute
    chronic change stable since prior study measuring millimetres impression findings report question which side
"""
WORDS = TEXT.split()
TEMPLATE = (
    "{%- for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{%- if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{%- if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>' }}{% endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<|im_start|>")


def write_checkpoint(folder: Path) -> None:
    """A plain folder of the family: 4 layers of 256 in the decoder, 4 of 192 in the encoder."""
    import transformers

    torch.manual_seed(0)
    base = train_tokenizer([" ".join(WORDS)] * 4, 1024)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=base.backend_tokenizer,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens(list(SPECIAL), special_tokens=True)
    start, end, image, video = (int(tokenizer.convert_tokens_to_ids(token)) for token in SPECIAL[:4])  # type: ignore[arg-type]
    text = {
        "vocab_size": 8192, "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 768, "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]},
        "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": True,
    }  # fmt: skip
    vision = {
        "depth": 4, "hidden_size": 192, "intermediate_size": 512, "num_heads": 4, "out_hidden_size": 256,
        "patch_size": 14, "window_size": 112, "fullatt_block_indexes": [1, 3], "tokens_per_second": 2,
    }  # fmt: skip
    config = transformers.Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=image, video_token_id=video,
        vision_start_token_id=start, vision_end_token_id=end, tie_word_embeddings=True,
    )  # fmt: skip
    model = transformers.AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    limits = {"shortest_edge": 56 * 56, "longest_edge": 448 * 448}
    transformers.Qwen2VLImageProcessorPil(patch_size=14, size=limits).save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "Qwen2_5_VLProcessor"}))


def write_pairs(folder: Path, count: int) -> None:
    """``pairs.jsonl`` and its pictures; half of the answers are a word or two, half are reports."""
    generator = np.random.default_rng(0)

    def words(least: int, most: int) -> str:
        return " ".join(generator.choice(WORDS, int(generator.integers(least, most))))

    samples = []
    for number in range(count):
        name = f"{number:04d}.png"
        pixels = generator.integers(0, 255, (*SIZES[number % len(SIZES)], 3), dtype=np.uint8)
        Pil.fromarray(pixels).save(folder / name, compress_level=1)
        least, most = (1, 4) if number % 2 else (30, 110)
        question = Turn(role="user", content=(VisualRef(kind="image", path=name), words(6, 24)))
        chosen, rejected = (
            (Turn(role="assistant", content=(f"{side} {words(least, most)}",)),) for side in ("yes", "no")
        )
        samples.append(
            Sample(
                sample_id=f"pair-{number:04d}",
                patient_id=f"p{number}",
                study_id=f"s{number}",
                source="bench",
                licence="CC0-1.0",
                split="train",
                turns=(question,),
                preference=Preference(chosen=chosen, rejected=rejected, made_by="bench"),
            )
        )
    write_manifest(folder / "pairs.jsonl", samples)


def same_adapters(model: torch.nn.Module) -> None:
    """The same start of every adapter, whatever the library before its name is; both then train the same numbers."""
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            seed = zlib.crc32(name[name.index("language_model.") :].encode())
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)


def texts_of(sample: Sample) -> dict[str, Any]:
    """A pair as TRL's conversational form; TRL puts the picture before the question, as the sample does."""
    assert sample.preference is not None
    question = next(part for part in sample.turns[0].content if isinstance(part, str))
    sides = {
        name: [{"role": "assistant", "content": turns[0].content[0]}]
        for name, turns in (("chosen", sample.preference.chosen), ("rejected", sample.preference.rejected))
    }
    return {"prompt": [{"role": "user", "content": question}], **sides}
