"""Which attention encoder and decoder run: by what is installed, and told; or forced by ``engine.attention``."""

from __future__ import annotations

import importlib.util

import torch

from medvlm.data_recipes.typed_yaml import BadConfig
from medvlm.model.loading import Model
from medvlm.model.medvlm import MedVLMForConditionalGeneration
from medvlm.model.packed_attention import NAME as PACKED
from medvlm.train.settings.engine import EngineConfig

FLASH = "flash_attention_2"


def choose_attention(model: Model, config: EngineConfig, device: torch.device) -> str:
    """Set the attention of ``model`` and tell it in words.

    flash-attn is taken on CUDA in bf16 where it is installed. That path is NOT TESTED: no GPU was at hand.

    Raises:
        BadConfig: the attention that is forced cannot run here.
    """
    if not isinstance(model, MedVLMForConditionalGeneration):
        if config.attention != "auto":
            raise BadConfig(
                f"engine.attention is {config.attention!r}, but the model is an existing vision-language model",
                where="configuration",
                mend="use attention: auto; its own config says which attention it runs",
            )
        return "as the existing model's config says"
    runs_flash = device.type == "cuda" and config.precision == "bf16" and importlib.util.find_spec("flash_attn")
    if config.attention == FLASH and not runs_flash:
        raise BadConfig(
            "engine.attention is flash_attention_2, which needs CUDA, precision: bf16 and the package flash-attn",
            where="configuration",
            mend="use attention: auto",
        )
    wanted: str = config.attention
    if wanted == "auto" and runs_flash:
        wanted = FLASH
    if wanted != "auto":
        model.vision.config._attn_implementation = wanted
        packs = wanted == "sdpa" and model.text._supports_attention_backend
        model.text.set_attn_implementation(PACKED if packs else wanted)
    vision = getattr(model.vision.config, "_attn_implementation", None) or "sdpa"
    return f"encoder {vision}, decoder {model.text.config._attn_implementation}"
