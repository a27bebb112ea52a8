"""timm's vision transformers -> PlainViT: VisionTransformer (ViT, DeiT, CLIP, SigLIP, DINOv2), Eva (EVA, EVA-02,
DINOv3) and NaFlexVit.

The features are those of ``forward_features``: behind ``norm`` where the model has one, without it where timm moved the
norm behind the pooling (``fc_norm``). Positions are interpolated as timm does: bicubic, antialiased.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from medvlm.model.pretrained_vit import Affine, CannotConvert, Layer, PlainViT, Weights, activation_name

_HEADS = ("head", "fc_norm", "attn_pool", "head_drop")


def read_timm(module: nn.Module, *, mean: tuple[float, ...], std: tuple[float, ...], source: str) -> PlainViT:
    """Take a timm model apart.

    Raises:
        CannotConvert: it is no plain ViT; says what stands in the way.
    """
    readers = {"VisionTransformer": _vision_transformer, "Eva": _eva, "NaFlexVit": _naflex}
    name = type(module).__name__
    if name not in readers or not type(module).__module__.startswith("timm."):
        raise CannotConvert(source, _why_not(name))
    weights = Weights(module, source)
    for head in _HEADS:
        weights.drop(f"{head}.", "pooling and classification are the projector's and the decoder's work")
    found = readers[name](module, weights)
    weights.finish()
    return PlainViT(mean=mean, std=std, eps=weights.eps, **found)


def _why_not(name: str) -> str:
    known = {
        "Beit": "its relative position bias has no place in packed attention",
        "SwinTransformer": "it attends in shifted windows and halves its grid between stages",
        "SwinTransformerV2": "it attends in shifted windows and halves its grid between stages",
        "VisionTransformerDistilled": "it has a distillation token and two heads",
    }
    return known.get(name, f"{name} is not a plain vision transformer (VisionTransformer, Eva or NaFlexVit of timm)")


def _vision_transformer(module: Any, weights: Weights) -> dict[str, Any]:
    kernel = _patch_kernel(module.patch_embed, weights)
    learned = weights.maybe("pos_embed")
    prefix, table = _prefix_and_table(weights, learned, module.patch_embed.grid_size, not module.no_embed_class)
    return {
        "kernel": kernel,
        "prefix": prefix,
        "table": table,
        "embedding_norm": weights.maybe_norm("norm_pre"),
        "final_norm": weights.maybe_norm("norm"),
        **_blocks(module, weights),
    }


def _eva(module: Any, weights: Weights) -> dict[str, Any]:
    return {**_vision_transformer(module, weights), **_rotary(module.rope, module, weights)}


def _naflex(module: Any, weights: Weights) -> dict[str, Any]:
    embeds = module.embeds
    for name in ("pos_embed_ar_preserving", "pos_embed_align_corners"):
        if getattr(embeds, name):
            raise CannotConvert(weights.source, f"its position table is resized with {name}")
    if embeds.pos_embed_interp_mode not in ("bicubic", "bilinear"):
        raise CannotConvert(weights.source, f"its position table is resized by {embeds.pos_embed_interp_mode}")
    if embeds.norm_input is not None or not isinstance(embeds.norm, nn.Identity):
        raise CannotConvert(weights.source, "its patch embedding is normalised")
    kernel = weights.linear("embeds.proj")
    if embeds.is_linear:
        rows, cols = embeds.patch_size
        shape = (-1, rows, cols, 3) if embeds.channels_last else (-1, 3, rows, cols)
        weight = kernel[0].reshape(shape)
        kernel = (weight.permute(0, 3, 1, 2) if embeds.channels_last else weight, kernel[1])
    tokens = [weights.maybe("embeds.cls_token"), weights.maybe("embeds.reg_token")]
    rope = _rotary(module.rope, module, weights) if module.rope is not None else {}
    return {
        "kernel": kernel,
        "prefix": _join(tokens),
        **_naflex_table(embeds, weights),
        "embedding_norm": weights.maybe_norm("norm_pre"),
        "final_norm": weights.maybe_norm("norm"),
        **_blocks(module, weights),
        **rope,
    }


def _naflex_table(embeds: Any, weights: Weights) -> dict[str, Any]:
    if embeds.pos_embed_type == "factorized":
        # A sum of a row's and a column's vector, each resized linearly: a bilinear table of their sums.
        rows, cols = weights.take("embeds.pos_embed_y")[0], weights.take("embeds.pos_embed_x")[0]
        return {"table": rows[:, None] + cols[None], "interpolation": "bilinear", "antialias": False}
    learned = weights.maybe("embeds.pos_embed")
    return {
        "table": None if learned is None else learned[0],
        "interpolation": embeds.pos_embed_interp_mode,
        "antialias": bool(embeds.pos_embed_antialias),
    }


def _patch_kernel(embed: Any, weights: Weights) -> Affine:
    proj = getattr(embed, "proj", None)
    if type(embed).__name__ != "PatchEmbed" or not isinstance(proj, nn.Conv2d) or proj.kernel_size != proj.stride:
        raise CannotConvert(weights.source, f"its patches are cut by a {type(embed).__name__} (a convolutional stem)")
    if not isinstance(embed.norm, nn.Identity):
        raise CannotConvert(weights.source, "its patch embedding is normalised")
    if proj.in_channels != 3:
        raise CannotConvert(weights.source, f"it takes {proj.in_channels} channels, ours are 3")
    return weights.linear("patch_embed.proj")


def _prefix_and_table(
    weights: Weights, learned: Tensor | None, grid: tuple[int, int], prefix_has_positions: bool
) -> tuple[Tensor | None, Tensor | None]:
    prefix = _join([weights.maybe("cls_token"), weights.maybe("reg_token")])
    if learned is None:
        return prefix, None
    positions = learned[0]
    if prefix is not None and prefix_has_positions:
        prefix, positions = prefix + positions[: len(prefix)], positions[len(prefix) :]
    return prefix, positions.reshape(*grid, -1)


def _join(tokens: list[Tensor | None]) -> Tensor | None:
    present = [token[0] for token in tokens if token is not None]
    return torch.cat(present) if present else None


def _rotary(rope: Any, module: Any, weights: Weights) -> dict[str, Any]:
    """Fields of PlainViT for a rotary embedding; its halves of a head's pairs turn with y and with x ("ij")."""
    kind = type(rope).__name__
    if rope is None:
        return {}
    if kind == "RotaryEmbeddingDinoV3":
        if rope.normalize_coords != "separate" or rope.grid_offset or rope.min_period is not None:
            raise CannotConvert(weights.source, "its rotary coordinates are not those of DINOv3's released models")
        plane: dict[str, Any] = {"coordinates": "unit", "base": float(rope.temperature)}
    elif kind == "RotaryEmbeddingCat" and rope.grid_type == "index" and not rope.in_pixels:
        reference = rope.ref_feat_shape
        plane = {"coordinates": "index", "base": float(rope.temperature), "offset": float(rope.grid_offset)}
        plane["reference"] = None if reference is None else [int(size) for size in reference]
    else:
        raise CannotConvert(weights.source, f"its rotary positions ({kind}) are learned or of a kind not built here")
    plane["first_axis"] = "y" if rope.grid_indexing == "ij" else "x"
    return {"plane_rotary": plane, "interleaved": not module.blocks[0].attn.rotate_half}


def _blocks(module: Any, weights: Weights) -> dict[str, Any]:
    layers = [_block(block, f"blocks.{index}", weights) for index, block in enumerate(module.blocks)]
    acts = {activation_name(block.mlp.act, weights.source) for block in module.blocks}
    if len(acts) != 1:
        raise CannotConvert(weights.source, f"its layers have different activations {sorted(acts)}")
    return {"layers": layers, "act": acts.pop(), "heads": module.blocks[0].attn.num_heads}


def _block(block: Any, name: str, weights: Weights) -> Layer:
    if type(block).__name__ not in ("Block", "EvaBlock"):
        raise CannotConvert(weights.source, f"its blocks are {type(block).__name__}, not pre-norm blocks in sequence")
    attention, mlp = block.attn, block.mlp
    if type(attention).__name__ not in ("Attention", "EvaAttention", "AttentionRope"):
        raise CannotConvert(weights.source, f"its attention is a {type(attention).__name__}")
    for norm in (attention.q_norm, attention.k_norm):
        if not isinstance(norm, nn.Identity):
            raise CannotConvert(weights.source, "it normalises queries and keys")
    if attention.head_dim * attention.num_heads != weights.module.embed_dim:  # type: ignore[operator]
        raise CannotConvert(weights.source, "its heads together are wider or narrower than its hidden size")
    return Layer(
        norm1=weights.norm(f"{name}.norm1"),
        qkv=_qkv(f"{name}.attn", weights),
        attention_norm=weights.maybe_norm(f"{name}.attn.norm"),
        out=weights.linear(f"{name}.attn.proj"),
        norm2=weights.norm(f"{name}.norm2"),
        **_mlp(mlp, f"{name}.mlp", weights),
        scale1=_first(weights, f"{name}.ls1.gamma", f"{name}.gamma_1"),
        scale2=_first(weights, f"{name}.ls2.gamma", f"{name}.gamma_2"),
    )


def _first(weights: Weights, *names: str) -> Tensor | None:
    return next((found for name in names if (found := weights.maybe(name)) is not None), None)


def _qkv(name: str, weights: Weights) -> Affine:
    fused = weights.maybe(f"{name}.qkv.weight")
    if fused is None:
        parts = [weights.linear(f"{name}.{part}_proj") for part in "qkv"]
        if len({weight.shape for weight, _ in parts}) != 1:
            raise CannotConvert(weights.source, "its keys and values have fewer heads than its queries")
        return torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])
    bias = weights.maybe(f"{name}.qkv.bias")
    query, value = weights.maybe(f"{name}.q_bias"), weights.maybe(f"{name}.v_bias")
    if query is not None and value is not None:  # EVA: the key's bias is fixed at zero
        bias = torch.cat([query, torch.zeros_like(query), value])
    return fused, fused.new_zeros(len(fused)) if bias is None else bias


def _mlp(mlp: Any, name: str, weights: Weights) -> dict[str, Any]:
    kind = type(mlp).__name__
    parts: dict[str, Any] = {"down": weights.linear(f"{name}.fc2"), "mlp_norm": weights.maybe_norm(f"{name}.norm")}
    if kind == "Mlp":
        return {**parts, "up": weights.linear(f"{name}.fc1")}
    if kind == "SwiGLU":
        return {**parts, "gate": weights.linear(f"{name}.fc1_g"), "up": weights.linear(f"{name}.fc1_x")}
    if kind == "GluMlp":
        halves = [part.chunk(2) for part in weights.linear(f"{name}.fc1")]
        first, second = ((halves[0][i], halves[1][i]) for i in range(2))
        gate, up = (second, first) if mlp.gate_last else (first, second)
        return {**parts, "gate": gate, "up": up}
    raise CannotConvert(weights.source, f"its MLP is a {kind}")
