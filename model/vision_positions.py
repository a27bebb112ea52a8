"""Where every patch of a pack lies, as the encoder uses it: features of the place, rotary angles, learned tables."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

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
        index: (P, 3) float, index of each patch along z, y, x in the grid of its visual.
        millimetres: (P, 3) centre of each patch from its visual's first corner.
        features: (P, PLACE_FEATURES).
        owner: (P,) the visual of each patch.
        rows: V grids (z, y, x); lengths: patches of each visual.
    """

    def __init__(self, grids: Tensor, spacing: Tensor, axis_kinds: Tensor, config: VisionConfig, merge: list[int]):
        device = spacing.device
        known = ~spacing.isnan()
        scale = torch.where(known, spacing, torch.full_like(spacing, config.unknown_voxel_mm))
        is_video = axis_kinds == VIDEO
        scale[:, 0] = torch.where(is_video, scale[:, 0] * config.second_in_mm, scale[:, 0])
        patch_mm = scale * torch.tensor(config.patch_size, device=device)
        self.rows: list[tuple[int, int, int]] = [tuple(row) for row in grids.tolist()]  # type: ignore[misc]
        self.index = torch.cat([_coordinates(row, tuple(merge)) for row in self.rows]).to(device)  # type: ignore[arg-type]
        self.lengths = [math.prod(row) for row in self.rows]
        self.owner = torch.repeat_interleave(
            torch.arange(len(self.rows), device=device), torch.tensor(self.lengths, device=device)
        )
        self.millimetres = (self.index + 0.5) * patch_mm[self.owner]
        relative = (self.index + 0.5) / grids.to(device)[self.owner] * 2 - 1  # (P, 3) in (-1, 1)
        octaves = math.pi / 2 * 2.0 ** torch.arange(_OCTAVES, device=device)
        waves = (relative[..., None] * octaves).flatten(1)  # (P, 3 * octaves)
        extent = (patch_mm * grids.to(device)).clamp(min=1e-3).log() / 5.0
        kinds = F.one_hot(axis_kinds, 3).to(relative.dtype)
        per_visual = torch.cat([extent * known, known.to(relative.dtype), kinds], dim=1)
        self.features = torch.cat([relative, waves.sin(), waves.cos(), per_visual[self.owner]], dim=1)


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


def rotary_angles(places: Places, config: VisionConfig) -> tuple[Tensor, Tensor] | None:
    """Cos and sin, each (1, P, head_dim / 2) for broadcasting over heads; None for rotary: none.

    float32 also under bf16.
    """
    if config.rotary == "none":
        return None
    pairs = config.head_dim // 2
    if config.rotary == "plane":
        angles = plane_angles(places, config, pairs)
    else:
        shortest, longest = config.rotary_wavelengths_mm
        millimetres = places.millimetres.float()
        angles = millimetres @ rotary_frequencies(pairs, shortest, longest).to(millimetres.device)
    return angles.cos()[None], angles.sin()[None]


def plane_angles(places: Places, config: VisionConfig, pairs: int) -> Tensor:
    """(P, pairs) angles of a pretrained 2D encoder's rotary positions, the same for every slab.

    "unit" as in transformers' modeling_dinov3_vit (evaluation: no jitter), "index" as in timm's RotaryEmbeddingCat.
    """
    plane = config.plane_rotary or {}
    size = torch.tensor(places.rows, device=places.index.device)[places.owner, 1:]  # (P, 2)
    index = places.index[:, 1:]
    if plane["coordinates"] == "unit":
        turn = 2 * math.pi * (2.0 * ((index + 0.5) / size) - 1.0)
    else:
        turn = index + plane.get("offset", 0.0)
        if plane.get("reference") is not None:
            turn = turn / size * torch.tensor(plane["reference"], device=turn.device)
    if plane.get("first_axis", "y") == "x":
        turn = turn.flip(1)
    half = pairs // 2
    frequency = 1.0 / plane["base"] ** (torch.arange(half, device=turn.device, dtype=torch.float32) / half)
    return (turn[:, :, None] * frequency).flatten(1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the dimension pairs of x (heads, P, head_dim) by the angles (1, P, head_dim / 2)."""
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.to(x.dtype)


def table_positions(table: Tensor, places: Places, config: VisionConfig) -> Tensor:
    """Learned positions (P, hidden) out of ``table`` (rows * cols, hidden), stretched to each visual's (rows, cols).

    A visual of the table's own size gets its rows untouched; others are interpolated in float32 with pixel centres
    aligned (align_corners=False), as the libraries do that such tables come from.
    """
    rows, cols = config.table_size or (0, 0)
    offsets: dict[tuple[int, int], int] = {}
    pieces, end = [], 0
    for _, height, width in places.rows:
        if (height, width) in offsets:
            continue
        piece = table
        if (height, width) != (rows, cols):
            image = table.float().reshape(1, rows, cols, -1).permute(0, 3, 1, 2)
            image = F.interpolate(
                image,
                size=(height, width),
                mode=config.table_interpolation,
                align_corners=False,
                antialias=config.table_antialias,
            )
            piece = image[0].flatten(1).T.to(table.dtype)
        offsets[height, width] = end
        end += height * width
        pieces.append(piece)
    device = places.index.device
    start = torch.tensor([offsets[height, width] for _, height, width in places.rows], device=device)
    widths = torch.tensor([width for _, _, width in places.rows], device=device)
    y, x = places.index[:, 1].long(), places.index[:, 2].long()
    return torch.cat(pieces)[start[places.owner] + y * widths[places.owner] + x]


@lru_cache(maxsize=512)
def _slab_order(grid: tuple[int, int, int], merge: tuple[int, int, int]) -> Tensor:
    """(P,) the patches of one visual, slab after slab; inside a slab in the order of ``cut``."""
    return torch.from_numpy(np.argsort(patch_coordinates(grid, merge)[:, 0], kind="stable"))


class SlabOrder:
    """The sequence of a pack in which slabs are contiguous and each stands behind its prefix tokens.

    Attributes:
        slabs: how many slabs the pack has.
        gather: (S,) row of [prefix of slab 0, of slab 1, ..., patches in the order of ``cut``] for each place of the
            sequence. Each row is used once, so that the gradient needs no summation in random order.
        scatter: (P,) place in the sequence of each patch.
    """

    def __init__(self, places: Places, merge: list[int], prefix_tokens: int) -> None:
        device = places.index.device
        self.prefix_tokens = prefix_tokens
        self.slabs = sum(depth for depth, _, _ in places.rows)
        gather = []
        slab, patch = 0, self.slabs * prefix_tokens
        for row, length in zip(places.rows, places.lengths, strict=True):
            patches = patch + _slab_order(row, tuple(merge)).reshape(row[0], -1)  # type: ignore[arg-type]
            prefix = torch.arange(slab * prefix_tokens, (slab + row[0]) * prefix_tokens).reshape(row[0], -1)
            gather.append(torch.cat([prefix, patches], dim=1).flatten())
            slab += row[0]
            patch += length
        self.gather = torch.cat(gather).to(device)
        self.scatter = self.gather.argsort()[self.slabs * prefix_tokens :]

    def angles(self, rotary: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor] | None:
        """Cos and sin (1, P, n) in the order of the sequence, (1, S, n); prefix tokens are not turned."""
        if rotary is None:
            return None
        cos, sin = rotary
        count = self.slabs * self.prefix_tokens
        ones, zeros = cos.new_ones(1, count, cos.shape[2]), cos.new_zeros(1, count, cos.shape[2])
        return torch.cat([ones, cos], dim=1)[:, self.gather], torch.cat([zeros, sin], dim=1)[:, self.gather]


def slab_order(places: Places, merge: list[int], config: VisionConfig) -> SlabOrder | None:
    """The order that ``config`` needs, or None where the patches may stay as they are."""
    if config.prefix_tokens == 0 and (config.depth_window is None or merge[0] == 1):
        return None
    return SlabOrder(places, merge, config.prefix_tokens)
