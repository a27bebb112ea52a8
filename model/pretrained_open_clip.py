"""open_clip's image towers -> PlainViT: its own VisionTransformer, and TimmModel (BiomedCLIP: Zhang et al. 2023,
arXiv:2303.00915), whose trunk is a timm model.

The features of the own tower are its patch tokens as ``output_tokens=True`` returns them: behind ``ln_post``, or
without it where the norm comes after the pooling or an attentional pooler stands between. open_clip cannot run another
size than the one it was made for; the table is interpolated as its ``resize_pos_embed`` does (bicubic, antialiased).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from medvlm.model.pretrained_timm import read_timm
from medvlm.model.pretrained_vit import CannotConvert, Layer, PlainViT, Weights, activation_name


def read_open_clip(visual: nn.Module, *, mean: tuple[float, ...], std: tuple[float, ...], source: str) -> PlainViT:
    """Take an image tower apart.

    Raises:
        CannotConvert: it is no plain ViT; says what stands in the way.
    """
    kind = type(visual).__name__
    if kind == "TimmModel":
        return read_timm(visual.trunk, mean=mean, std=std, source=source)  # type: ignore[arg-type]
    if kind != "VisionTransformer" or not type(visual).__module__.startswith("open_clip."):
        raise CannotConvert(source, f"{kind} is not a plain vision transformer")
    return _vision_transformer(visual, Weights(visual, source), mean, std)


def _vision_transformer(visual: Any, weights: Weights, mean: tuple[float, ...], std: tuple[float, ...]) -> PlainViT:
    blocks = visual.transformer.resblocks
    for block in blocks:
        if type(block).__name__ != "ResidualAttentionBlock":
            raise CannotConvert(weights.source, f"its blocks are {type(block).__name__}")
    weights.drop("proj", "the projection into CLIP's space is the projector's work")
    pooled_first = visual.attn_pool is not None or visual.final_ln_after_pool
    if pooled_first:
        weights.drop("attn_pool", "pooling is the projector's work")
        weights.drop("ln_post", "it normalises pooled features")
    positions = weights.take("positional_embedding")
    kernel = weights.take("conv1.weight")
    found = PlainViT(
        heads=blocks[0].attn.num_heads,
        kernel=(kernel, kernel.new_zeros(len(kernel))),
        mean=mean,
        std=std,
        prefix=(weights.take("class_embedding") + positions[0])[None],
        table=positions[1:].reshape(*visual.grid_size, -1),
        embedding_norm=weights.maybe_norm("ln_pre"),
        final_norm=None if pooled_first else weights.norm("ln_post"),
        layers=[_block(f"transformer.resblocks.{index}", weights) for index in range(len(blocks))],
        act=activation_name(blocks[0].mlp.gelu, weights.source),
        eps=weights.eps,
    )
    weights.finish()
    return found


def _block(name: str, weights: Weights) -> Layer:
    return Layer(
        norm1=weights.norm(f"{name}.ln_1"),
        qkv=(weights.take(f"{name}.attn.in_proj_weight"), weights.take(f"{name}.attn.in_proj_bias")),
        out=weights.linear(f"{name}.attn.out_proj"),
        norm2=weights.norm(f"{name}.ln_2"),
        up=weights.linear(f"{name}.mlp.c_fc"),
        down=weights.linear(f"{name}.mlp.c_proj"),
        scale1=_scale(name, "ls_1", weights),
        scale2=_scale(name, "ls_2", weights),
    )


def _scale(block: str, name: str, weights: Weights) -> Tensor | None:
    return weights.maybe(f"{block}.{name}.gamma")
