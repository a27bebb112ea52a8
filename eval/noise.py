"""A little noise on what a model is shown: an answer that it changes was not read from the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medvlm.model.visual import Image, Video, Visual, Volume

STRENGTH = 0.03
"""Standard deviation, as a share of the range between the 1st and the 99th percentile of the visual's own values."""


def noisy(visual: Visual, name: str) -> Visual:
    """``visual`` with Gaussian noise that follows from ``name`` (a request); its unit, spacing and orientation stay."""
    match visual:
        case Image():
            return replace(visual, pixels=_noisy(visual.pixels, name))
        case Volume():
            return replace(visual, voxels=_noisy(visual.voxels, name))
        case Video():
            return replace(visual, frames=_noisy(visual.frames, name))


def _noisy(values: np.ndarray, name: str) -> np.ndarray:
    sample = values.reshape(-1)[:: max(1, values.size // 100_000)]
    low, high = np.percentile(sample, [1, 99])
    generator = np.random.default_rng(int(name, 16) % 2**63)
    drawn = generator.standard_normal(values.shape, dtype=np.float32) * np.float32(STRENGTH * (high - low))
    # Display values end at 0 and 1; HU below air or above metal do no harm but would change the range: both are kept.
    return np.clip(values + drawn, values.min(), values.max()).astype(values.dtype)
