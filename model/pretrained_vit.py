"""A plain 2D vision transformer in words of no library, and what VisionEncoder makes of it.

The readers (pretrained_timm.py, pretrained_open_clip.py, pretrained_transformers.py) take a library's module apart into
a PlainViT; ``assemble`` turns that into the fields of VisionConfig and a state dict. Whatever a module holds must be
taken, or dropped by name with a reason: a parameter that nobody asked for means a model that is not the one we build.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from medvlm.model.vision_positions import PLACE_FEATURES

logger = logging.getLogger(__name__)

Affine = tuple[Tensor, Tensor]
"""Weight and bias of a linear layer or a LayerNorm."""

_WHY_NOT = {
    "rel_pos": "it adds a relative position bias to attention (BEiT, Swin), which packed attention has no place for",
    "relative_position": "it adds a relative position bias to attention, which packed attention has no place for",
    "q_norm": "it normalises queries and keys",
    "k_norm": "it normalises queries and keys",
    "dist_token": "it has a distillation token and two heads",
    "gate.": "its attention is gated",
    "cpe": "it has convolutional positions",
    "logit_scale": "its attention has a learned temperature",
    "lambda_": "its attention is differential",
}


class CannotConvert(ValueError):
    """An encoder that the packed encoder cannot express."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(
            f"{source} cannot be converted into the packed encoder: {reason}; choose another encoder, or run this one "
            "as it is on every slice with `slices: true`"
        )


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One block; None where it lacks a part. Shapes as in torch: weights are (out, in).

    Attributes:
        qkv: (3 hidden, hidden), queries, then keys, then values, each head after head.
        gate: of a gated MLP.
        attention_norm: before ``out``; mlp_norm: before ``down``.
        scale1, scale2: (hidden,) layer scale of attention and MLP.
    """

    norm1: Affine
    qkv: Affine
    out: Affine
    norm2: Affine
    up: Affine
    down: Affine
    gate: Affine | None = None
    attention_norm: Affine | None = None
    mlp_norm: Affine | None = None
    scale1: Tensor | None = None
    scale2: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class PlainViT:
    """A pre-norm vision transformer of 2D patches.

    Attributes:
        kernel: (hidden, 3, h, w) and its bias (hidden,), for pixels that were normalised with mean and std.
        mean, std: (3,) per channel, of pixels in [0, 1].
        table: (rows, cols, hidden) learned positions, or None.
        prefix: (K, hidden) class and register tokens, their positions added; K may be 0.
        plane_rotary: as in VisionConfig; ``interleaved``: its pairs are neighbours, not halves, of a head.
        final_norm: None when the features end without one.
    """

    heads: int
    kernel: Affine
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layers: list[Layer]
    act: str
    eps: float
    table: Tensor | None = None
    interpolation: str = "bicubic"
    antialias: bool = True
    prefix: Tensor | None = None
    embedding_norm: Affine | None = None
    final_norm: Affine | None = None
    plane_rotary: dict[str, Any] | None = None
    interleaved: bool = False


class Weights:
    """The tensors of a module, each to be taken once.

    Args:
        module: on any device, "meta" included.
        source: what messages call it.
    """

    def __init__(self, module: nn.Module, source: str) -> None:
        self.module, self.source = module, source
        self._left = {name: tensor.detach() for name, tensor in module.state_dict().items()}
        self._eps: set[float] = set()

    def take(self, name: str) -> Tensor:
        """A tensor that must be there."""
        if name not in self._left:
            raise CannotConvert(self.source, f"it has no {name}")
        return self._left.pop(name)

    def maybe(self, name: str) -> Tensor | None:
        """A tensor that may be missing."""
        return self._left.pop(name, None)

    def linear(self, name: str) -> Affine:
        """Of a linear layer; a bias that it lacks is zero."""
        weight = self.take(f"{name}.weight")
        bias = self.maybe(f"{name}.bias")
        return weight, weight.new_zeros(weight.shape[0]) if bias is None else bias

    def norm(self, name: str) -> Affine:
        """Of a LayerNorm; a bias that it lacks is zero."""
        norm = self.module.get_submodule(name)
        if not isinstance(norm, nn.LayerNorm) or norm.weight is None:
            raise CannotConvert(self.source, f"{name} is a {type(norm).__name__}, not a LayerNorm with weights")
        self._eps.add(norm.eps)
        return self.linear(name)

    def maybe_norm(self, name: str) -> Affine | None:
        """Of a LayerNorm where the module has one there, None where it has an Identity or nothing."""
        parent, _, child = name.rpartition(".")
        norm = getattr(self.module.get_submodule(parent), child, None)
        return None if norm is None or isinstance(norm, nn.Identity) else self.norm(name)

    def drop(self, prefix: str, why: str) -> None:
        """Leave out what begins with ``prefix``, and log it."""
        dropped = [name for name in self._left if name.startswith(prefix)]
        for name in dropped:
            del self._left[name]
        if dropped:
            logger.info("%s: %s left out (%d tensors): %s", self.source, prefix.rstrip("."), len(dropped), why)

    @property
    def eps(self) -> float:
        """Of every LayerNorm taken so far: they must agree."""
        if len(self._eps) != 1:
            raise CannotConvert(self.source, f"its LayerNorms have different eps {sorted(self._eps)}")
        return next(iter(self._eps))

    def finish(self) -> None:
        """Refuse when a tensor is left that nobody took."""
        if not self._left:
            return
        names = list(self._left)
        reasons = [why for part, why in _WHY_NOT.items() if any(part in name for name in names)]
        reason = reasons[0] if reasons else "it has parameters that the packed encoder has no place for"
        raise CannotConvert(self.source, f"{reason} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")


def activation_name(act: Callable[[Tensor], Tensor], source: str) -> str:
    """The name in ACT2FN of an activation, recognised by its values: each library spells them its own way."""
    probe = torch.linspace(-6, 6, 241, device="cpu")
    with torch.no_grad(), torch.device("cpu"):
        values = act(probe.clone())
        for name in ("gelu", "gelu_pytorch_tanh", "quick_gelu", "silu", "relu"):
            if torch.allclose(ACT2FN[name](probe.clone()), values, rtol=0, atol=1e-6):
                return name
    raise CannotConvert(source, f"its activation {act} is none of gelu, gelu_pytorch_tanh, quick_gelu, silu, relu")


def assemble(
    vit: PlainViT, *, patch_depth: int = 1, drop_layers: int = 0, source: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fields of VisionConfig and the state dict of VisionEncoder.

    The 2D kernel is inflated to ``patch_depth`` slices as W / patch_depth (I3D: Carreira and Zisserman 2017,
    arXiv:1705.07750, section 2.1), so that equal slices give the 2D answer. Mean and std are folded into it in float64,
    because our patches hold 2 p - 1 of a pixel p in [0, 1]. ``place`` is zero: training may fill it.

    Args:
        drop_layers: how many of the last layers are left out; then the final norm is left out too, because it was
            trained for the last layer (LLaVA reads CLIP's penultimate layer so: Liu et al. 2023, arXiv:2304.08485).
        source: what messages call the encoder.

    Raises:
        ValueError: patch_depth or drop_layers out of range.
    """
    if type(patch_depth) is not int or patch_depth < 1:
        raise ValueError(f"{source}: a patch must be at least 1 slice deep, got {patch_depth}")
    if type(drop_layers) is not int or not 0 <= drop_layers < len(vit.layers):
        raise ValueError(f"{source}: drop_layers must lie in 0..{len(vit.layers) - 1}, got {drop_layers}")
    weight, bias = vit.kernel
    hidden, _, rows, cols = weight.shape
    layers = vit.layers[: len(vit.layers) - drop_layers]
    final_norm = None if drop_layers else vit.final_norm
    prefix = 0 if vit.prefix is None else len(vit.prefix)
    scaled = any(layer.scale1 is not None or layer.scale2 is not None for layer in layers)
    config: dict[str, Any] = {
        "hidden_size": hidden,
        "num_hidden_layers": len(layers),
        "num_attention_heads": vit.heads,
        "intermediate_size": layers[0].up[0].shape[0],
        "patch_size": [patch_depth, rows, cols],
        "rotary": "none" if vit.plane_rotary is None else "plane",
        "plane_rotary": vit.plane_rotary,
        "place_features": True,
        "table_size": None if vit.table is None else list(vit.table.shape[:2]),
        "table_interpolation": vit.interpolation,
        "table_antialias": vit.antialias,
        "prefix_tokens": prefix,
        "embedding_norm": vit.embedding_norm is not None,
        "final_norm": final_norm is not None,
        "attention_norm": _all_or_none(layers, "attention_norm", source),
        "layer_scale": scaled,
        "mlp": "gated" if _all_or_none(layers, "gate", source) else "plain",
        "mlp_norm": _all_or_none(layers, "mlp_norm", source),
        "hidden_act": vit.act,
        "layer_norm_eps": vit.eps,
    }
    state: dict[str, Tensor] = {}
    state["embed.weight"], state["embed.bias"] = _embedding(weight, bias, vit.mean, vit.std, patch_depth)
    state["place.weight"] = weight.new_zeros(hidden, PLACE_FEATURES)
    state["place.bias"] = weight.new_zeros(hidden)
    if vit.table is not None:
        state["table"] = vit.table.reshape(-1, hidden)
    if prefix and vit.prefix is not None:
        state["prefix"] = vit.prefix
    _put(state, "embedding_norm", vit.embedding_norm)
    _put(state, "norm", final_norm)
    for index, layer in enumerate(layers):
        _put_layer(state, f"layers.{index}.", layer, vit, scaled)
    return config, {name: tensor.float().contiguous() for name, tensor in state.items()}


def _embedding(weight: Tensor, bias: Tensor, mean: tuple[float, ...], std: tuple[float, ...], depth: int) -> Affine:
    """(hidden, 3, h, w) for (p - mean) / std -> (hidden, 3 * depth * h * w) for v = 2 p - 1."""
    kernel = weight.double()
    shift = (0.5 - torch.tensor(mean, dtype=torch.float64, device=weight.device)) / _column(std, weight)
    folded = kernel / (2 * _column(std, weight))[:, None, None] / depth
    folded = folded[:, :, None].expand(-1, -1, depth, -1, -1)
    return folded.reshape(len(kernel), -1), bias.double() + (kernel.sum(dim=(2, 3)) * shift).sum(dim=1)


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=like.device)


def _put_layer(state: dict[str, Tensor], name: str, layer: Layer, vit: PlainViT, scaled: bool) -> None:
    weight, bias = layer.qkv
    if vit.interleaved:
        weight, bias = (_to_halves(part, vit.heads) for part in (weight, bias))
    _put(state, f"{name}norm1", layer.norm1)
    _put(state, f"{name}attention.qkv", (weight, bias))
    _put(state, f"{name}attention.norm", layer.attention_norm)
    _put(state, f"{name}attention.out", layer.out)
    _put(state, f"{name}norm2", layer.norm2)
    _put(state, f"{name}mlp.gate", layer.gate)
    _put(state, f"{name}mlp.up", layer.up)
    _put(state, f"{name}mlp.norm", layer.mlp_norm)
    _put(state, f"{name}mlp.down", layer.down)
    if scaled:
        ones = torch.ones_like(layer.norm1[0])
        state[f"{name}scale1"] = ones if layer.scale1 is None else layer.scale1
        state[f"{name}scale2"] = ones if layer.scale2 is None else layer.scale2


def _put(state: dict[str, Tensor], name: str, affine: Affine | None) -> None:
    if affine is not None:
        state[f"{name}.weight"], state[f"{name}.bias"] = affine


def _to_halves(qkv: Tensor, heads: int) -> Tensor:
    """Reorder the rows of queries and keys: pair i, dimensions (2 i, 2 i + 1) of a head, becomes (i, i + d / 2).

    Attention scores do not change when queries and keys are permuted alike.
    """
    parts = qkv.reshape(3, heads, -1, 2, *qkv.shape[1:])  # (q k v, head, pair, 2, ...)
    turned = parts[:2].transpose(2, 3).reshape(2, -1, *qkv.shape[1:])
    return torch.cat([turned, qkv.reshape(3, -1, *qkv.shape[1:])[2:]]).reshape(qkv.shape)


def _all_or_none(layers: list[Layer], part: str, source: str) -> bool:
    having = {getattr(layer, part) is not None for layer in layers}
    if len(having) != 1:
        raise CannotConvert(source, f"only some of its layers have a {part}")
    return having.pop()
