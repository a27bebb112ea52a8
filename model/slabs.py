"""Grey volume -> windowed and resampled channels, a few slices at a time: whole passes over a CT are paid in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from medvlm.model.geometry import resize_axis, taps_of, weighted

Window = tuple[float, float]

SLAB_BYTES = 1 << 22
"""Of one channel of the slices that are worked on together: stays in a cache, and calls cost less than numbers."""


def windowed_and_resized(voxels: np.ndarray, windows: Sequence[Window], size: tuple[int, int, int]) -> np.ndarray:
    """(D, H, W) -> (C, *size) float32 in [0, 1]: each window is a channel, resampled as geometry.resize_volume does.

    Equal, bit by bit, to ``resize_volume(apply_window(voxels, window), size)`` for each window: the same operations in
    the same order, on slabs of slices instead of the whole volume. What lies before z in the order of axes is done
    again for a slice that two slabs share.

    Args:
        voxels: any layout; flipped and permuted views cost nothing.
        windows: (low, high) in the unit of the voxels, low < high.
        size: the new (D, H, W).
    """
    shape = voxels.shape
    order = sorted((axis for axis in range(3) if shape[axis] != size[axis]), key=lambda axis: size[axis] / shape[axis])
    at = order.index(0) if 0 in order else len(order)
    before, after = order[:at], order[at + 1 :]
    out = np.empty((len(windows), *size), dtype=np.float32)
    indices, weights = taps_of(shape[0], size[0]) if 0 in order else (None, None)
    slices = max(1, SLAB_BYTES // (4 * shape[1] * shape[2]))
    step = max(1, slices * size[0] // shape[0])
    for start in range(0, size[0], step):
        stop = min(start + step, size[0])
        low, high = start, stop
        if indices is not None:
            used = indices[start:stop]
            low, high = int(used.min()), int(used.max()) + 1
        for channel, window in enumerate(windows):
            slab = torch.from_numpy(_windowed(voxels[low:high], window))
            for axis in before:
                slab = resize_axis(slab, axis, size[axis])
            if indices is not None:
                slab = weighted(slab, 0, indices[start:stop] - low, weights[start:stop])  # type: ignore[index]
            for axis in after:
                slab = resize_axis(slab, axis, size[axis])
            out[channel, start:stop] = slab.numpy()
    return out


def _windowed(values: np.ndarray, window: Window) -> np.ndarray:
    """intensity.apply_window in one buffer."""
    low, high = window
    slab = np.subtract(values, low, dtype=np.float32, order="C")
    slab /= high - low
    return slab.clip(0.0, 1.0, out=slab)
