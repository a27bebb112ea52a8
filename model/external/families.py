"""Which architectures are served, by the ``model_type`` that their config states."""

from __future__ import annotations

from transformers import PretrainedConfig

from medvlm.model.external.family import Family
from medvlm.model.external.qwen import Qwen3VL, Qwen25VL
from medvlm.model.external.tiles import Gemma3, InternVL, LlavaOneVision

FAMILIES: dict[str, type[Family]] = {
    "qwen2_5_vl": Qwen25VL,
    "qwen3_vl": Qwen3VL,
    "gemma3": Gemma3,
    "llava_onevision": LlavaOneVision,
    "internvl": InternVL,
}


def is_served(config: PretrainedConfig) -> bool:
    """Whether ``config`` is of a family that is served."""
    return config.model_type in FAMILIES


def family_of(config: PretrainedConfig) -> Family:
    """The family of ``config``.

    Raises:
        ValueError: it is not served.
    """
    if not is_served(config):
        raise ValueError(f"{config.model_type!r} is not served; {served()}")
    return FAMILIES[config.model_type](config)


def served() -> str:
    """What is served, for a message."""
    return "served are " + ", ".join(f"{kind.name} ({model_type})" for model_type, kind in FAMILIES.items())
