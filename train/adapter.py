"""Adapters alone, in PEFT's format: what a LoRA stage leaves beside its merged checkpoint."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from medvlm.model.external.shell import PREFIX as SHELL
from medvlm.model.external.shell import ExternalVLM
from medvlm.train.checkpoint import write_folder
from medvlm.train.lora import ADAPTER, inject_lora
from medvlm.train.quantize import Linear4bit

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PEFT = "base_model.model."
"""What PEFT puts before every name in its files."""


def save_adapter(folder: Path, model: nn.Module, base: str) -> None:
    """Write the adapters of ``model``; ``peft.PeftModel.from_pretrained(base model, folder)`` loads them.

    Args:
        base: where the model without adapters lies, for the adapter's config.
    """
    inner = SHELL if isinstance(model, ExternalVLM) else ""
    configs: Any = model.peft_config
    config: LoraConfig = copy(configs[ADAPTER])

    def bare(names: Any) -> list[str] | None:
        return sorted(name.removeprefix(inner) for name in names) if names else None

    config.base_model_name_or_path, config.inference_mode = base, True
    config.target_modules, config.target_parameters = (
        bare(config.target_modules) or [],
        bare(config.target_parameters),
    )
    tensors = get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False)
    named = {
        f"{_PEFT}{name.removeprefix(inner)}": tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()
    }

    def write(unfinished: Path) -> None:
        config.save_pretrained(str(unfinished))
        quantised = any(isinstance(module, Linear4bit) for module in model.modules())
        save_file(named, unfinished / WEIGHTS, metadata={"format": "pt", **({"quantize": "nf4"} if quantised else {})})

    write_folder(folder, write)


def load_adapter(folder: Path, model: nn.Module) -> None:
    """Put the adapters that ``folder`` holds into ``model`` in place.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the adapter is not LoRA, or was made for another model.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} holds no {name}; expected an adapter such as runs/NAME/stages/04-X/adapter"
            )
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        if (file.metadata() or {}).get("quantize"):
            raise ValueError(
                f"the adapter {folder} was trained on weights in 4 bits and does something else on whole ones; use the "
                "checkpoint beside it, into which it was merged"
            )
    config = LoraConfig.from_pretrained(str(folder))
    if not isinstance(config, LoraConfig):
        raise ValueError(f"{folder} holds an adapter of type {config.peft_type}; only LoRA and DoRA can be merged")
    inner = SHELL if isinstance(model, ExternalVLM) else ""
    config.inference_mode = False
    config.target_modules = [inner + name for name in config.target_modules or ()]
    if config.target_parameters:
        config.target_parameters = [inner + name for name in config.target_parameters]
    try:
        inject_lora(model, config)
    except ValueError as error:
        raise ValueError(f"the adapter {folder} does not fit the model: {error}; merge it into its own base") from error
    tensors = {inner + name.removeprefix(_PEFT): tensor for name, tensor in load_file(folder / WEIGHTS).items()}
    expected = get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False)
    differ = sorted(set(expected) ^ set(tensors)) or [n for n in tensors if tensors[n].shape != expected[n].shape]
    if differ:
        raise ValueError(
            f"the adapter {folder} does not fit the model: {differ[0]} and {len(differ) - 1} more are absent or of "
            "another shape; merge it into its own base"
        )
    with torch.no_grad():
        set_peft_model_state_dict(model, tensors, adapter_name=ADAPTER)
