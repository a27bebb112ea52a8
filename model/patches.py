"""Cutting a resampled visual into patches, and where each patch lies."""

from __future__ import annotations

import numpy as np

from medvlm.model.grid import GridRule, Size3


def cut(array: np.ndarray, rule: GridRule) -> np.ndarray:
    """(3, D, H, W) -> (P, patch_dim) float32, the patches of one merged token next to each other."""
    (t, h, w), (mt, mh, mw) = rule.patch, rule.merge
    gt, gh, gw = rule.grid(array.shape[1:])  # type: ignore[arg-type]
    blocks = array.reshape(3, gt // mt, mt, t, gh // mh, mh, h, gw // mw, mw, w)
    # (token z, y, x, merge z, y, x, channel, patch z, y, x)
    blocks = blocks.transpose(1, 4, 7, 2, 5, 8, 0, 3, 6, 9)
    return np.ascontiguousarray(blocks.reshape(gt * gh * gw, -1), dtype=np.float32)


def patch_coordinates(grid: Size3, merge: Size3) -> np.ndarray:
    """(P, 3) int64 index of every patch along (z, y, x), in the order in which ``cut`` lays patches."""
    gt, gh, gw = grid
    mt, mh, mw = merge
    index = np.stack(np.meshgrid(np.arange(gt), np.arange(gh), np.arange(gw), indexing="ij"), axis=-1)
    index = index.reshape(gt // mt, mt, gh // mh, mh, gw // mw, mw, 3).transpose(0, 2, 4, 1, 3, 5, 6)
    return index.reshape(-1, 3)
