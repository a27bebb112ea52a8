"""Projectors: patches of the encoder -> visual tokens at the decoder's width.

All of them have one call, ``forward(features, grids, kept, axis_kinds)``, work on a pack of visuals, and never let one
visual see another. Linear layers run once over the whole pack, whatever is in it: under ZeRO-3 each call is a
collective that all ranks must make in the same order. Every parameter takes part in every call, for the same reason.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from medvlm.model.config import ProjectorConfig
from medvlm.model.projector_mixture import SoftMixtureOfExperts
from medvlm.model.projector_pooling import SpatialPooling
from medvlm.model.projector_resampling import AttentionPooling, PerceiverResampler, reach


class Projector(PreTrainedModel):
    """Two-layer MLP (LLaVA-1.5, arXiv:2310.03744) over merged neighbours (Qwen2-VL, arXiv:2409.12191).

    The patches of one token lie next to each other, so merging is a reshape: (P, width) -> (P / m, m * width).
    """

    config: ProjectorConfig
    config_class = ProjectorConfig
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def __init__(self, config: ProjectorConfig, vision_width: int, text_width: int) -> None:
        super().__init__(config)
        self.merged = math.prod(config.merge)
        self.norm = nn.LayerNorm(self.merged * vision_width)
        self.up = nn.Linear(self.merged * vision_width, config.hidden_size)
        self.act = ACT2FN["gelu_pytorch_tanh"]
        self.down = nn.Linear(config.hidden_size, text_width)
        self.post_init()

    def forward(self, features: Tensor, grids: Tensor, kept: Tensor, axis_kinds: Tensor) -> Tensor:
        """Visual tokens of all visuals.

        Args:
            features: (P, vision_width), the patches of one token next to each other.
            grids: (V, 3) patches along (z or time, y, x) of each visual.
            kept: (N,) bool; tokens that are not kept are not made.
            axis_kinds: (V,) IMAGE, VOLUME or VIDEO.

        Returns:
            (kept.sum(), text_width).
        """
        merged = features.reshape(features.shape[0] // self.merged, -1)[kept]
        return self.down(self.act(self.up(self.norm(merged))))


def check_kept(config: ProjectorConfig, grids: Tensor, axis_kinds: Tensor, kept: Tensor) -> None:
    """Raise ValueError, naming both numbers, when ``kept`` is not one value for each token that the projector makes."""
    made = sum(reach(config, grids, axis_kinds).queries)
    if kept.shape != (made,):
        raise ValueError(
            f"'kept' holds {tuple(kept.shape)} values, but the projector of kind {config.kind!r} makes {made} tokens "
            "of these visuals; use the processor that was saved with this model, or give it merge=config.merge and "
            "projector=config.token_rule() of the model's ProjectorConfig"
        )


AnyProjector = Projector | SoftMixtureOfExperts | SpatialPooling | PerceiverResampler | AttentionPooling


def build_projector(config: ProjectorConfig, vision_width: int, text_width: int) -> AnyProjector:
    """The projector that ``config.kind`` names, with random weights.

    Raises:
        ValueError: the encoder's width is not a multiple of the projector's heads.
    """
    match config.kind:
        case "mlp":
            return Projector(config, vision_width, text_width)
        case "soft_moe":
            return SoftMixtureOfExperts(config, vision_width, text_width)
        case "pooling":
            return SpatialPooling(config, vision_width, text_width)
        case "perceiver":
            return PerceiverResampler(config, vision_width, text_width)
        case "attention_pooling":
            return AttentionPooling(config, vision_width, text_width)
    raise ValueError(f"projector kind is {config.kind!r}; use a kind that ProjectorConfig knows")
