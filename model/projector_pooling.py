"""SpatialPooling: the projector that averages blocks of patches (M3D: Bai et al. 2024, arXiv:2404.00578)."""

from __future__ import annotations

import math
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from medvlm.model.config import ProjectorConfig


def average_blocks(features: Tensor, grids: list[list[int]], pool: list[int]) -> Tensor:
    """Mean of each block of ``pool`` patches; a block at the far end that is not whole averages what it holds.

    On whole blocks it is torch's ``avg_pool3d``, which refuses grids smaller than a block and whose gradient on CUDA
    is summed in no fixed order.

    Args:
        features: (P, width), each visual in raster order (z, y, x).
        grids: V x 3 patches along (z, y, x).

    Returns:
        (N, width), the blocks of each visual in raster order.
    """
    (pz, py, px), out, start = pool, [], 0
    for grid, same in groupby(grids):
        count = len(list(same))
        stop = start + count * math.prod(grid)
        rest = [-size % block for size, block in zip(grid, pool, strict=True)]
        padding = (0, 0, 0, rest[2], 0, rest[1], 0, rest[0])
        whole = F.pad(features[start:stop].reshape(count, *grid, -1), padding)
        z, y, x = ((size + more) // block for size, more, block in zip(grid, rest, pool, strict=True))
        sums = whole.reshape(count, z, pz, y, py, x, px, -1).sum(dim=(2, 4, 6))
        held = F.pad(features.new_ones(*grid), padding[2:]).reshape(z, pz, y, py, x, px).sum(dim=(1, 3, 5))
        out.append((sums / held[..., None]).flatten(0, 3))
        start = stop
    return torch.cat(out)


class SpatialPooling(PreTrainedModel):
    """Blocks of patches are averaged, then a two-layer MLP maps them (M3D: 8 x 16 x 16 patches -> 256 tokens).

    M3D takes one size of scan; here the grid may be any. Unlike M3D's, the average is normalised before the MLP.
    """

    config: ProjectorConfig
    config_class = ProjectorConfig
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def __init__(self, config: ProjectorConfig, vision_width: int, text_width: int) -> None:
        super().__init__(config)
        assert config.pool is not None
        self.pool = config.pool
        self.norm = nn.LayerNorm(vision_width)
        self.mlp = nn.ModuleDict(
            {"up": nn.Linear(vision_width, config.hidden_size), "down": nn.Linear(config.hidden_size, text_width)}
        )
        self.act = ACT2FN["gelu_pytorch_tanh"]
        self.post_init()

    def forward(self, features: Tensor, grids: Tensor, kept: Tensor, axis_kinds: Tensor) -> Tensor:
        """Visual tokens of all visuals: (kept.sum(), text_width); arguments as in Projector.forward."""
        pooled = average_blocks(features, grids.tolist(), self.pool)[kept]
        return self.mlp["down"](self.act(self.mlp["up"](self.norm(pooled))))
