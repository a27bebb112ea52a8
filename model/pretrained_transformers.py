"""transformers' vision transformers -> PlainViT: SigLIP, SigLIP2 (NaFlex), CLIP, DINOv2 with and without registers, and
DINOv3.

The features are ``last_hidden_state`` without class and register tokens. In CLIP it ends without a norm
(``post_layernorm`` sees the class token only), in the others behind the last one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from medvlm.model.pretrained_vit import Affine, CannotConvert, Layer, PlainViT, Weights, activation_name

TOWERS = {
    "siglip_vision_model": "SiglipVisionModel",
    "siglip2_vision_model": "Siglip2VisionModel",
    "clip_vision_model": "CLIPVisionModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "dinov3_vit": "DINOv3ViTModel",
}
"""``model_type`` of a vision tower -> its class in transformers."""


def read_transformers(module: nn.Module, *, mean: tuple[float, ...], std: tuple[float, ...], source: str) -> PlainViT:
    """Take a vision tower apart.

    Raises:
        CannotConvert: it is of another family; says which there are.
    """
    readers = {
        "SiglipVisionModel": _siglip,
        "Siglip2VisionModel": _siglip2,
        "CLIPVisionModel": _clip,
        "Dinov2Model": _dinov2,
        "Dinov2WithRegistersModel": _dinov2,
        "DINOv3ViTModel": _dinov3,
    }
    name = type(module).__name__
    if name not in readers:
        raise CannotConvert(source, f"{name} is none of {', '.join(sorted(readers))}")
    weights = Weights(module, source)
    found = readers[name](module, weights)
    weights.finish()
    heads = int(module.config.num_attention_heads)  # type: ignore[union-attr, arg-type]
    return PlainViT(mean=mean, std=std, heads=heads, eps=weights.eps, **found)


def _siglip(module: Any, weights: Weights) -> dict[str, Any]:
    weights.drop("head.", "pooling is the projector's work")
    return {
        "kernel": weights.linear("embeddings.patch_embedding"),
        "table": _square(weights.take("embeddings.position_embedding.weight"), weights),
        "antialias": False,
        "final_norm": weights.norm("post_layernorm"),
        **_clip_layers(module, weights),
    }


def _siglip2(module: Any, weights: Weights) -> dict[str, Any]:
    found = _siglip(module, weights)
    weight, bias = found["kernel"]
    size = module.config.patch_size
    # Its processor lays a patch out as (y, x, channel).
    found["kernel"] = (weight.reshape(-1, size, size, 3).permute(0, 3, 1, 2), bias)
    return {**found, "interpolation": "bilinear", "antialias": True}


def _clip(module: Any, weights: Weights) -> dict[str, Any]:
    weights.drop("post_layernorm.", "it normalises the class token only")
    positions = weights.take("embeddings.position_embedding.weight")
    return {
        "kernel": weights.linear("embeddings.patch_embedding"),
        "prefix": (weights.take("embeddings.class_embedding") + positions[0])[None],
        "table": _square(positions[1:], weights),
        "antialias": False,
        "embedding_norm": weights.norm("pre_layrnorm"),
        **_clip_layers(module, weights),
    }


def _clip_layers(module: Any, weights: Weights) -> dict[str, Any]:
    layers = []
    for index in range(module.config.num_hidden_layers):
        name = f"encoder.layers.{index}"
        layers.append(
            Layer(
                norm1=weights.norm(f"{name}.layer_norm1"),
                qkv=_qkv(f"{name}.self_attn", weights),
                out=weights.linear(f"{name}.self_attn.out_proj"),
                norm2=weights.norm(f"{name}.layer_norm2"),
                up=weights.linear(f"{name}.mlp.fc1"),
                down=weights.linear(f"{name}.mlp.fc2"),
            )
        )
    return {"layers": layers, "act": activation_name(module.encoder.layers[0].mlp.activation_fn, weights.source)}


def _dinov2(module: Any, weights: Weights) -> dict[str, Any]:
    weights.drop("embeddings.mask_token", "it serves masked pretraining only")
    positions = weights.take("embeddings.position_embeddings")[0]
    prefix = weights.take("embeddings.cls_token")[0] + positions[:1]
    registers = weights.maybe("embeddings.register_tokens")
    return {
        "kernel": weights.linear("embeddings.patch_embeddings.projection"),
        "prefix": prefix if registers is None else torch.cat([prefix, registers[0]]),
        "table": _square(positions[1:], weights),
        "antialias": registers is not None,
        "final_norm": weights.norm("layernorm"),
        **_dino_layers(module.encoder.layer, "encoder.layer", weights),
    }


def _dinov3(module: Any, weights: Weights) -> dict[str, Any]:
    weights.drop("embeddings.mask_token", "it serves masked pretraining only")
    return {
        "kernel": weights.linear("embeddings.patch_embeddings"),
        "prefix": torch.cat([weights.take("embeddings.cls_token")[0], weights.take("embeddings.register_tokens")[0]]),
        "plane_rotary": {"coordinates": "unit", "base": float(module.rope_embeddings.base), "first_axis": "y"},
        "final_norm": weights.norm("norm"),
        **_dino_layers(module.model.layer, "model.layer", weights),
    }


def _dino_layers(blocks: Any, prefix: str, weights: Weights) -> dict[str, Any]:
    layers = []
    for index, block in enumerate(blocks):
        name = f"{prefix}.{index}"
        layers.append(
            Layer(
                norm1=weights.norm(f"{name}.norm1"),
                qkv=_qkv(f"{name}.attention", weights),
                out=weights.linear(f"{name}.attention.o_proj"),
                norm2=weights.norm(f"{name}.norm2"),
                **_dino_mlp(block.mlp, f"{name}.mlp", weights),
                scale1=weights.take(f"{name}.layer_scale1.lambda1"),
                scale2=weights.take(f"{name}.layer_scale2.lambda1"),
            )
        )
    mlp = blocks[0].mlp
    act = getattr(mlp, "activation_fn", None) or mlp.act_fn
    return {"layers": layers, "act": activation_name(act, weights.source)}


def _dino_mlp(mlp: Any, name: str, weights: Weights) -> dict[str, Affine]:
    if hasattr(mlp, "fc1"):
        return {"up": weights.linear(f"{name}.fc1"), "down": weights.linear(f"{name}.fc2")}
    parts = {"up": weights.linear(f"{name}.up_proj"), "down": weights.linear(f"{name}.down_proj")}
    return {**parts, "gate": weights.linear(f"{name}.gate_proj")} if hasattr(mlp, "gate_proj") else parts


def _qkv(name: str, weights: Weights) -> Affine:
    parts = [weights.linear(f"{name}.{part}_proj") for part in "qkv"]
    return torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])


def _square(positions: Tensor, weights: Weights) -> Tensor:
    side = round(len(positions) ** 0.5)
    if side * side != len(positions):
        raise CannotConvert(weights.source, f"its {len(positions)} positions form no square grid")
    return positions.reshape(side, side, -1)
