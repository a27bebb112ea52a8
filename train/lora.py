"""LoRA by (component, role) targets, resolved to full module names; merged only when the logits agree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from medvlm.model.batch import PackedBatch
from medvlm.model.medvlm import MedVLMForConditionalGeneration
from medvlm.train.config import Lora

_ROLE_MARKS = {"attention": ("attn", "attention"), "mlp": ("mlp", "feed_forward", "ffn")}
"""What a role's modules are called in the libraries; matched against whole parts of a module's path."""


def lora_modules(model: nn.Module, targets: tuple[str, ...]) -> list[str]:
    """Full names of the linear layers that ``targets`` ("component.role") name.

    Raises:
        ValueError: a target matches no layer; lists the layers that the component has.
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    found: list[str] = []
    for target in targets:
        component, role = target.split(".")
        marks = _ROLE_MARKS[role]
        inside = [name for name in linear if name.startswith(f"{component}.")]
        matched = [name for name in inside if any(mark in part for part in name.split(".")[:-1] for mark in marks)]
        if not matched:
            raise ValueError(
                f"LoRA target {target!r} matches no linear layer of the model; {component!r} has "
                f"{inside[:6] or 'none'}: choose another role, or train the component in full"
            )
        found += matched
    return list(dict.fromkeys(found))


def add_lora(model: MedVLMForConditionalGeneration, lora: Lora) -> list[str]:
    """Put adapters into ``model`` in place; only they require gradients among what they adapt.

    Returns:
        The names of the adapted layers.
    """
    names = lora_modules(model, lora.targets)
    trainable = {name: p.requires_grad for name, p in model.named_parameters()}
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        use_dora=lora.dora,
        target_modules=names,
    )
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            parameter.requires_grad_(trainable[name.replace(".base_layer.", ".")])
    return names


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """The model as it was before its adapters: the reference of a preference loss."""
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    if not layers:
        raise ValueError("the model has no adapters; a preference stage needs 'lora' so that adapters off = reference")
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merge_lora(model: MedVLMForConditionalGeneration, probe: PackedBatch, tolerance: float = 1e-3) -> float:
    """Fold the adapters into the weights in place and take them out.

    Args:
        probe: a pack on which the logits before and after must agree.
        tolerance: largest difference allowed, relative to the largest logit.

    Returns:
        The relative difference seen.

    Raises:
        ValueError: the logits moved by more than ``tolerance``; the model is then not fit to be saved.
    """
    was_training = model.training
    model.eval()
    with torch.no_grad():
        before = model(**probe.model_inputs()).logits
        for name, module in list(model.named_modules()):
            if isinstance(module, LoraLayer):
                module.merge(safe_merge=True)  # type: ignore[attr-defined]
                parent, _, leaf = name.rpartition(".")
                owner = model.get_submodule(parent)
                if isinstance(owner, nn.ModuleDict):
                    owner[leaf] = module.get_base_layer()
                else:
                    setattr(owner, leaf, module.get_base_layer())
        after = model(**probe.model_inputs()).logits
    difference = float((before - after).abs().max() / before.abs().max())
    if not difference <= tolerance:
        raise ValueError(f"merging the adapters moved the logits by {difference:.2e}, more than {tolerance:.0e}")
    model.train(was_training)
    return difference
