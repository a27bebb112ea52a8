"""VisionEncoder: one pass over the packed patches of all images, volumes and videos of a step.

A 2D image is a volume of one slice and a video a volume whose first axis is time. Attention stays inside a visual.
Rotary positions run along z, y and x in millimetres where the spacing is known (RoPE: Su et al. 2021,
arXiv:2104.09864; its axial form: Qwen2-VL, arXiv:2409.12191; millimetres are ours), so that a lesion keeps its size
at any resolution; Fourier features of the relative place in the field of view tell where a patch lies.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from medvlm.model.batch import VIDEO
from medvlm.model.config import VisionConfig
from medvlm.model.patches import patch_coordinates

_OCTAVES = 4
PLACE_FEATURES = 3 * (1 + 2 * _OCTAVES) + 3 + 3 + 3
"""Relative place and its sines and cosines, log extent in mm, whether it is known, and the axis kind, one-hot."""


@lru_cache(maxsize=512)
def _coordinates(grid: tuple[int, int, int], merge: tuple[int, int, int]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(patch_coordinates(grid, merge))).float()


class Places:
    """Where every patch of a pack lies.

    Attributes:
        millimetres: (P, 3) centre of each patch from its visual's first corner.
        features: (P, PLACE_FEATURES).
        lengths: patches of each visual.
    """

    def __init__(self, grids: Tensor, spacing: Tensor, axis_kinds: Tensor, config: VisionConfig, merge: list[int]):
        device = spacing.device
        known = ~spacing.isnan()
        scale = torch.where(known, spacing, torch.full_like(spacing, config.unknown_voxel_mm))
        is_video = axis_kinds == VIDEO
        scale[:, 0] = torch.where(is_video, scale[:, 0] * config.second_in_mm, scale[:, 0])
        patch_mm = scale * torch.tensor(config.patch_size, device=device)
        rows = [tuple(row) for row in grids.tolist()]
        index = torch.cat([_coordinates(row, tuple(merge)) for row in rows]).to(device)  # (P, 3)
        self.lengths = [math.prod(row) for row in rows]
        owner = torch.repeat_interleave(
            torch.arange(len(rows), device=device), torch.tensor(self.lengths, device=device)
        )
        self.millimetres = (index + 0.5) * patch_mm[owner]
        relative = (index + 0.5) / grids.to(device)[owner] * 2 - 1  # (P, 3) in (-1, 1)
        octaves = math.pi / 2 * 2.0 ** torch.arange(_OCTAVES, device=device)
        waves = (relative[..., None] * octaves).flatten(1)  # (P, 3 * octaves)
        extent = (patch_mm * grids.to(device)).clamp(min=1e-3).log() / 5.0
        kinds = F.one_hot(axis_kinds, 3).to(relative.dtype)
        per_visual = torch.cat([extent * known, known.to(relative.dtype), kinds], dim=1)
        self.features = torch.cat([relative, waves.sin(), waves.cos(), per_visual[owner]], dim=1)


@lru_cache(maxsize=16)
def rotary_frequencies(pairs: int, shortest: float, longest: float) -> Tensor:
    """(3, pairs) radians per millimetre: the head's dimension pairs are shared out over z, y and x."""
    share = [pairs - 2 * (pairs // 3), pairs // 3, pairs // 3]
    frequency = torch.zeros(3, pairs)
    start = 0
    for axis, count in enumerate(share):
        wavelengths = torch.logspace(math.log10(shortest), math.log10(longest), count)
        frequency[axis, start : start + count] = 2 * math.pi / wavelengths
        start += count
    return frequency


def rotary_angles(millimetres: Tensor, config: VisionConfig) -> tuple[Tensor, Tensor]:
    """(P, 3) -> cos and sin, each (1, P, head_dim / 2) for broadcasting over heads; float32 also under bf16."""
    pairs = config.hidden_size // config.num_attention_heads // 2
    shortest, longest = config.rotary_wavelengths_mm
    angles = millimetres.float() @ rotary_frequencies(pairs, shortest, longest).to(millimetres.device)
    return angles.cos()[None], angles.sin()[None]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the dimension pairs of x (heads, P, head_dim) by the angles (1, P, head_dim / 2)."""
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.to(x.dtype)


def eager_attention(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    """Softmax attention over (heads, P, head_dim) with an additive block mask: what the others must equal."""
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(q.device)
    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(owner[:, None] != owner[None, :], float("-inf"))
    return scores.softmax(dim=-1, dtype=torch.float32).to(v.dtype) @ v


def sdpa_attention(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    """Attention inside each visual; neighbours of equal length share one call, and no mask is ever made."""
    heads, _, dim = q.shape
    out, start = [], 0
    for length, count in _runs(lengths):
        stop = start + length * count
        # (heads, count * length, dim) -> (count, heads, length, dim)
        query, key, value = (x[:, start:stop].reshape(heads, count, length, dim).transpose(0, 1) for x in (q, k, v))
        mixed = F.scaled_dot_product_attention(query, key, value)
        out.append(mixed.transpose(0, 1).reshape(heads, stop - start, dim))
        start = stop
    return torch.cat(out, dim=1)


def flash_attention(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    """flash-attn's variable-length kernel; CUDA and half precision only. Untested without a GPU."""
    from flash_attn import flash_attn_varlen_func

    ends = torch.tensor([0, *lengths], device=q.device, dtype=torch.int32).cumsum(0, dtype=torch.int32)
    q, k, v = (x.transpose(0, 1).contiguous() for x in (q, k, v))  # (P, heads, head_dim)
    return flash_attn_varlen_func(q, k, v, ends, ends, max(lengths), max(lengths)).transpose(0, 1)


ATTENTION = {"eager": eager_attention, "sdpa": sdpa_attention, "flash_attention_2": flash_attention}


def _runs(lengths: list[int]) -> list[tuple[int, int]]:
    """Run-length encode: [(length, how many neighbours have it), ...]."""
    runs: list[tuple[int, int]] = []
    for length in lengths:
        if runs and runs[-1][0] == length:
            runs[-1] = (length, runs[-1][1] + 1)
        else:
            runs.append((length, 1))
    return runs


class EncoderLayer(nn.Module):
    """Pre-norm transformer block (ViT: Dosovitskiy et al. 2020, arXiv:2010.11929)."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.heads = config.num_attention_heads
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = nn.ModuleDict(
            {"qkv": nn.Linear(config.hidden_size, 3 * config.hidden_size),
             "out": nn.Linear(config.hidden_size, config.hidden_size)}
        )  # fmt: skip
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = nn.ModuleDict(
            {"up": nn.Linear(config.hidden_size, config.intermediate_size),
             "down": nn.Linear(config.intermediate_size, config.hidden_size)}
        )  # fmt: skip
        self.act = ACT2FN["gelu_pytorch_tanh"]

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, lengths: list[int]) -> Tensor:
        """x: (P, hidden)."""
        total, hidden = x.shape
        qkv = self.attention["qkv"](self.norm1(x)).view(total, 3, self.heads, hidden // self.heads)
        q, k, v = qkv.permute(1, 2, 0, 3)  # each (heads, P, head_dim)
        attend = ATTENTION[self.config._attn_implementation or "sdpa"]
        mixed = attend(rotate(q, cos, sin), rotate(k, cos, sin), v, lengths)
        x = x + self.attention["out"](mixed.transpose(0, 1).reshape(total, hidden))
        return x + self.mlp["down"](self.act(self.mlp["up"](self.norm2(x))))


class VisionEncoder(PreTrainedModel):
    """Patches (P, patch_dim) of V visuals -> features (P, hidden)."""

    config: VisionConfig
    config_class = VisionConfig
    main_input_name = "patches"
    _supports_sdpa = True
    _supports_flash_attn = True
    supports_gradient_checkpointing = True
    _no_split_modules = ["EncoderLayer"]  # noqa: RUF012

    def __init__(self, config: VisionConfig) -> None:
        super().__init__(config)
        self.embed = nn.Linear(config.patch_dim, config.hidden_size)
        self.place = nn.Linear(PLACE_FEATURES, config.hidden_size)
        self.layers = nn.ModuleList([EncoderLayer(config) for _ in range(config.num_hidden_layers)])
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    def forward(self, patches: Tensor, grids: Tensor, spacing: Tensor, axis_kinds: Tensor, merge: list[int]) -> Tensor:
        """Encode every visual on its own.

        Args:
            patches: (P, patch_dim), in the order of ``patches.cut``.
            grids: (V, 3); spacing: (V, 3) with NaN when unknown; axis_kinds: (V,).
            merge: of the projector, which decides the order of the patches.

        Returns:
            (P, hidden).
        """
        places = Places(grids, spacing, axis_kinds, self.config, merge)
        cos, sin = rotary_angles(places.millimetres, self.config)
        dtype = self.embed.weight.dtype
        x = self.embed(patches.to(dtype)) + self.place(places.features.to(dtype))
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                x = torch.utils.checkpoint.checkpoint(layer, x, cos, sin, places.lengths, use_reentrant=False)
            else:
                x = layer(x, cos, sin, places.lengths)
        return self.norm(x)
