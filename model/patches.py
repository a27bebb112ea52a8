"""Cutting a resampled visual into patches, and where each patch lies."""

from __future__ import annotations

import numpy as np
import torch

from medvlm.model.grid import GridRule, Size3


def cut(array: np.ndarray, rule: GridRule, depth: int | None = None, *, signed: bool = False) -> np.ndarray:
    """(C, D, H, W) -> (P, patch_dim) float32, the patches of one merged token next to each other.

    Args:
        array: C is 3, or 1 where the three channels are alike; D may be 1 where all slices are alike.
        rule: the patch and what is merged.
        depth: slices that are cut; D when None.
        signed: bring [0, 1] to [-1, 1].
    """
    (t, h, w), (mt, mh, mw) = rule.patch, rule.merge
    channels, slices, height, width = array.shape
    gt, gh, gw = rule.grid((slices if depth is None else depth, height, width))
    flat = slices == 1
    own_t, own_mt, layers = (1, 1, 1) if flat else (t, mt, gt // mt)
    stored = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    stored = stored.view(channels, layers, own_mt, own_t, gh // mh, mh, h, gw // mw, mw, w)
    # (token z, y, x, merge z, y, x, channel, patch z, y, x)
    blocks = _laid_out(stored.permute(1, 4, 7, 2, 5, 8, 0, 3, 6, 9))
    if signed:
        blocks.mul_(2.0).sub_(1.0)
    # What is alike is laid out once: numbers are then repeated a patch at a time, not copied one by one.
    blocks = blocks.view(layers, gh // mh, gw // mw, own_mt, mh, mw, channels, own_t, h * w)
    whole = blocks.expand(gt // mt, gh // mh, gw // mw, mt, mh, mw, 3, t, h * w)
    if whole.shape != blocks.shape:
        blocks = _laid_out(whole)
    return blocks.view(gt * gh * gw, -1).numpy()


def _laid_out(view: torch.Tensor) -> torch.Tensor:
    """A contiguous copy. NumPy asks the system for large pages, torch does not; small ones take longer to clear than to
    fill."""
    out = torch.from_numpy(np.empty(view.shape, dtype=np.float32))
    return out.copy_(view)


def patch_coordinates(grid: Size3, merge: Size3) -> np.ndarray:
    """(P, 3) int64 index of every patch along (z, y, x), in the order in which ``cut`` lays patches."""
    gt, gh, gw = grid
    mt, mh, mw = merge
    index = np.stack(np.meshgrid(np.arange(gt), np.arange(gh), np.arange(gw), indexing="ij"), axis=-1)
    index = index.reshape(gt // mt, mt, gh // mh, mh, gw // mw, mw, 3).transpose(0, 2, 4, 1, 3, 5, 6)
    return index.reshape(-1, 3)
