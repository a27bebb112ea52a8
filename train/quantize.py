"""Frozen linear layers in 4 bits, for QLoRA (Dettmers et al. 2023, arXiv:2305.14314): NF4 with double quantisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from bitsandbytes.nn import Linear4bit
else:
    try:
        from bitsandbytes.nn import Linear4bit
    except ModuleNotFoundError as error:
        if error.name != "bitsandbytes":
            raise

        class Linear4bit(nn.Linear):
            """What no layer is an instance of where bitsandbytes is not installed."""


def quantize(model: nn.Module, takes: Callable[[str], bool]) -> list[str]:
    """Turn the linear layers of ``model`` whose full name ``takes`` accepts into NF4 layers in place.

    The output layer is left alone: it is often tied to the embedding, and its rounding is the answer's. Weights on the
    meta device (a plan without weights) stay as they are.

    Returns:
        The names of the quantised layers.

    Raises:
        ModuleNotFoundError: bitsandbytes is not installed.
        ValueError: a component keeps its experts in fused tensors, which are not linear layers.
    """
    _require_bitsandbytes()
    fused = [n for n, p in model.named_parameters() if p.ndim == 3 and "experts" in n and takes(n)]
    if fused:
        raise ValueError(
            f"lora.quantize: nf4 would leave {fused[0]} and {len(fused) - 1} more in full precision, because experts "
            "in one tensor are not linear layers; leave quantize out for a mixture of experts"
        )
    head = getattr(model, "get_output_embeddings", lambda: None)()
    names = [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear and module is not head and takes(name) and not module.weight.is_meta
    ]
    for name in names:
        replace_module(model, name, _quantized(model.get_submodule(name)))
    return names


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put ``module`` in the place of what is called ``name``."""
    parent, _, leaf = name.rpartition(".")
    owner = model.get_submodule(parent)
    if isinstance(owner, nn.ModuleDict):
        owner[leaf] = module
    else:
        setattr(owner, leaf, module)


def _require_bitsandbytes() -> None:
    try:
        import bitsandbytes  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "bitsandbytes":
            raise
        raise ModuleNotFoundError(
            "lora.quantize is nf4, but bitsandbytes is not installed; run `pip install 'medvlm[qlora]'`, or set "
            "lora.quantize: null",
            name="bitsandbytes",
        ) from error


def _quantized(layer: Any) -> nn.Module:
    from bitsandbytes.nn import Params4bit

    made = Linear4bit(layer.in_features, layer.out_features, bias=False, quant_type="nf4", device="meta")
    # Without this, a forward pass without gradients packs the weight anew for the processor at hand and computes in
    # bf16: the reference of a preference and the proof of a merge would then not be what was trained.
    made.support_avx512bf16_for_cpu = False
    weight: Any = Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", module=made)
    made.weight = weight.to(layer.weight.device)
    made.bias = layer.bias
    made.train(layer.training)
    return made


def dequantized(layer: nn.Module) -> nn.Linear:
    """The plain fp32 layer whose weight is what the 4 bits of ``layer`` stand for."""
    from bitsandbytes.functional import dequantize_4bit

    weight: Any = layer.weight
    full = dequantize_4bit(weight.data, weight.quant_state).float()
    plain = nn.Linear(full.shape[1], full.shape[0], bias=False, device="meta")
    plain.weight = nn.Parameter(full, requires_grad=False)
    plain.bias = layer.bias  # type: ignore[assignment]
    return plain.train(layer.training)


def dequantize_all(model: nn.Module) -> None:
    """Turn every NF4 layer of ``model`` into a plain one in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear4bit):
            replace_module(model, name, dequantized(module))


def load_trained(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load ``weights`` into ``model``, strictly: the same names, and 4-bit weights that are bit-equal to its own.

    torch cannot load 4-bit weights by their names; they are frozen, so that a model made from the same checkpoint has
    them already.

    Raises:
        ValueError: names differ, or the frozen 4-bit weights do.
    """
    packed: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            own = module.state_dict()
            packed |= {f"{name}.{key}": tensor for key, tensor in own.items() if key.split(".")[0] == "weight"}
    for name, tensor in packed.items():
        if name in weights and not torch.equal(tensor.cpu(), weights[name].cpu()):
            raise ValueError(
                f"the frozen 4-bit weight {name} is not that of the checkpoint which the stage started from; do not "
                "change that checkpoint while a stage runs"
            )
    if not packed:
        model.load_state_dict(dict(weights), strict=True)
        return
    absent = sorted(set(packed) - set(weights))
    report = model.load_state_dict({n: t for n, t in weights.items() if n not in packed}, strict=False)
    left = sorted(set(report.missing_keys) - set(packed))
    if absent or left or report.unexpected_keys:
        raise ValueError(
            f"the trained weights do not fit the model: missing {[*absent, *left][:3]}, unexpected "
            f"{report.unexpected_keys[:3]}; this is a fault of medvlm, please report it"
        )
