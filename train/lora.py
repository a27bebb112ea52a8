"""LoRA by (component, role) targets, resolved to full module names; merged only when the logits agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from medvlm.model.batch import PackedBatch
from medvlm.train.quantize import Linear4bit, dequantize_all, dequantized, quantize, replace_module
from medvlm.train.settings.lora import Lora

ADAPTER = "default"
"""PEFT's name of the one adapter that a stage trains."""

_ROLE_MARKS = {"attention": ("attn", "attention"), "mlp": ("mlp", "feed_forward", "ffn", "experts")}
"""What a role's modules are called in the libraries; matched against whole parts of a module's path."""

_ROUTERS = ("gate", "router", "shared_expert_gate")
"""Linear layers that choose experts: a low-rank change of them redistributes tokens, so they stay as they were."""


@dataclass(frozen=True, kw_only=True)
class LoraTargets:
    """What adapters are put on.

    Attributes:
        modules: full names of linear layers.
        parameters: full names of experts that transformers keeps as one tensor (experts, out, in).
    """

    modules: tuple[str, ...]
    parameters: tuple[str, ...]


def component_of(model: nn.Module, name: str) -> str:
    """The component that a module or parameter of ``model`` belongs to: vision, projector or text."""
    own = getattr(model, "component_of", None)
    return own(name) if own is not None else name.split(".")[0]


def lora_targets(model: nn.Module, targets: tuple[str, ...]) -> LoraTargets:
    """What ``targets`` ("component.role") name: linear layers, and experts of a mixture; never a router or the output
    layer.

    Raises:
        ValueError: a target matches nothing; lists the layers that the component has.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and name.split(".")[-1] not in _ROUTERS
    ]
    fused = [
        name for name, p in model.named_parameters() if p.ndim == 3 and "experts" in name.rpartition(".")[0].split(".")
    ]
    modules: dict[str, None] = {}
    parameters: dict[str, None] = {}
    for target in targets:
        component, role = target.split(".")
        inside = [name for name in (*linear, *fused) if component_of(model, name) == component]
        matched = [name for name in inside if _has_role(name, role)]
        if not matched:
            raise ValueError(
                f"LoRA target {target!r} matches no linear layer of the model; {component!r} has "
                f"{inside[:6] or 'none'}: choose another role (all takes every layer), or train the component in full"
            )
        known = set(fused)
        parameters |= dict.fromkeys(name for name in matched if name in known)
        modules |= dict.fromkeys(name for name in matched if name not in known)
    return LoraTargets(modules=tuple(modules), parameters=tuple(parameters))


def _has_role(name: str, role: str) -> bool:
    parts = name.split(".")[:-1]
    return role == "all" or any(mark in part for part in parts for mark in _ROLE_MARKS[role])


def add_lora(model: nn.Module, lora: Lora) -> LoraTargets:
    """Put adapters into ``model`` in place; only they require gradients among what they adapt.

    Raises:
        ValueError: a target matches nothing; experts of a mixture with a setting that they do not take.
    """
    found = lora_targets(model, lora.targets)
    if found.parameters:
        _refuse_for_experts(lora, found.parameters[0])
    trainable = {name: p.requires_grad for name, p in model.named_parameters()}
    if lora.dora:
        _refuse_zero_rows(model, found.modules)
    if lora.quantize is not None:
        quantize(model, lambda name: component_of(model, name) in lora.components)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        use_dora=lora.dora,
        target_modules=list(found.modules),
        target_parameters=list(found.parameters) or None,
    )
    inject_lora(model, config)
    for name, parameter in model.named_parameters():
        if "lora_" not in name and parameter.is_floating_point():
            parameter.requires_grad_(trainable[name.replace(".base_layer", "")])
    return found


def inject_lora(model: nn.Module, config: LoraConfig) -> None:
    """Put the adapters of ``config`` into ``model`` in place."""
    # PEFT adapts a 4-bit layer as one only when the model says that it holds such layers; transformers would take the
    # mark for its own quantisation, so it is removed.
    model.is_loaded_in_4bit = True  # type: ignore[assignment]
    try:
        inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    finally:
        del model.is_loaded_in_4bit


def _refuse_for_experts(lora: Lora, name: str) -> None:
    for setting, used in (("dora", lora.dora), ("dropout", lora.dropout > 0), ("quantize", lora.quantize is not None)):
        if used:
            raise ValueError(
                f"LoRA's {setting!r} does not work for {name}: the experts are one tensor, whose adapter is added to "
                f"the weight and not to the activations; leave {setting!r} out, or target the component's attention"
            )


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


def merge_lora(model: nn.Module, probe: PackedBatch, tolerance: float = 1e-3) -> float:
    """Fold the adapters into the weights in place and take them out; quantised layers become plain ones.

    A quantised layer is first dequantised: the adapter was trained on that weight, not on the one before
    quantisation. The output of every adapted linear layer is compared as well: the logits of a small or young model
    hardly show a wrong query or key.

    Args:
        probe: a pack on which the logits before and after must agree.
        tolerance: largest difference allowed, relative to the largest logit (or output of a layer).

    Returns:
        The relative difference seen.

    Raises:
        ValueError: a layer or the logits moved by more than ``tolerance``; the model is then not fit to be saved.
    """
    was_training = model.training
    model.eval()
    with torch.no_grad():
        before = model(**probe.model_inputs()).logits
        # A snapshot would hold the wrappers that are nested in one another for the tensors of one module.
        while (found := _outermost_adapter(model)) is not None:
            replace_module(model, found[0], _proved(*found, tolerance))
        dequantize_all(model)
        after = model(**probe.model_inputs()).logits
    difference = float((before - after).abs().max() / _scale(before))
    if not difference <= tolerance:
        raise ValueError(f"merging the adapters moved the logits by {difference:.2e}, more than {tolerance:.0e}")
    model.__dict__.pop("peft_config", None)
    model.train(was_training)
    return difference


def _outermost_adapter(model: nn.Module) -> tuple[str, Any] | None:
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            return name, module
    return None


def _proved(name: str, layer: nn.Module, tolerance: float) -> nn.Module:
    """The plain layer that does what ``layer`` does, after it has shown so; experts are proved by the logits alone."""
    if isinstance(layer, ParamWrapper):
        return _merged(layer)
    weight = layer.get_base_layer().weight  # type: ignore[operator]
    features = int(layer.in_features)  # type: ignore[arg-type]
    dtype = weight.dtype if weight.is_floating_point() else torch.float32
    x = torch.randn(8, features, generator=torch.Generator().manual_seed(0)).to(weight.device, dtype)
    before = layer(x)
    plain = _merged(layer)
    difference = float((before - plain(x)).abs().max() / _scale(before))
    if not difference <= tolerance:
        raise ValueError(
            f"merging the adapters moved the output of {name} by {difference:.2e}, more than {tolerance:.0e}"
        )
    return plain


def _refuse_zero_rows(model: nn.Module, names: Iterable[str]) -> None:
    """DoRA divides by the length of each row of a weight."""
    for name in names:
        weight = model.get_parameter(f"{name}.weight")
        if weight.is_floating_point() and bool((weight.detach() == 0).all(dim=1).any()):
            raise ValueError(
                f"DoRA divides by the length of the rows of {name}, and some are zero, as the features of place in a "
                "converted encoder are; use dora: false, or other targets such as vision.attention"
            )


def _scale(output: torch.Tensor) -> torch.Tensor:
    """The largest value, which may be 0: a converted encoder's features of place start so."""
    return output.abs().max().clamp_min(torch.finfo(output.dtype).tiny)


def _merged(layer: nn.Module) -> nn.Module:
    """The plain layer that does what ``layer`` does."""
    if isinstance(layer, ParamWrapper):
        return layer.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=None)
    assert isinstance(layer, LoraLayer)
    base = layer.get_base_layer()
    if not isinstance(base, Linear4bit):
        layer.merge(safe_merge=True)  # type: ignore[attr-defined]
        return base
    plain = dequantized(base)
    if ADAPTER in layer.lora_variant:
        plain.weight.copy_(layer.lora_variant[ADAPTER].merge_safe(layer, ADAPTER, plain.weight))
    else:
        plain.weight.add_(layer.get_delta_weight(ADAPTER))  # type: ignore[operator]
    return plain
