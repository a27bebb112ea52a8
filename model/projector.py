"""Projector: merge neighbouring patches and map them to the decoder's width."""

from __future__ import annotations

import math

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from medvlm.model.config import ProjectorConfig


class Projector(PreTrainedModel):
    """Two-layer MLP (LLaVA-1.5, arXiv:2310.03744) over merged neighbours (Qwen2-VL, arXiv:2409.12191).

    The patches of one token lie next to each other, so merging is a reshape: (P, width) -> (P / m, m * width).
    """

    config_class = ProjectorConfig
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: ProjectorConfig, vision_width: int, text_width: int) -> None:
        super().__init__(config)
        self.merged = math.prod(config.merge)
        self.norm = nn.LayerNorm(self.merged * vision_width)
        self.up = nn.Linear(self.merged * vision_width, config.hidden_size)
        self.act = ACT2FN["gelu_pytorch_tanh"]
        self.down = nn.Linear(config.hidden_size, text_width)
        self.post_init()

    def forward(self, features: Tensor, grids: Tensor, kept: Tensor) -> Tensor:
        """Visual tokens of all visuals.

        Args:
            features: (P, vision_width), the patches of one token next to each other.
            grids: (V, 3) patches along (z or time, y, x) of each visual.
            kept: (N,) bool; tokens that are not kept are not made.

        Returns:
            (kept.sum(), text_width).
        """
        merged = features.reshape(features.shape[0] // self.merged, -1)[kept]
        return self.down(self.act(self.up(self.norm(merged))))
