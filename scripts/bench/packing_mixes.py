"""Length mixes of the packing benchmark: sizes of samples as columns."""

from __future__ import annotations

import numpy as np

from medvlm.data_recipes.packing import Sizes

KINDS = ("short question", "chat", "text", "volume")
MIXES = {
    "clinic": (0.45, 0.30, 0.15, 0.10),
    "long text": (0.20, 0.35, 0.40, 0.05),
    "volumes": (0.20, 0.20, 0.10, 0.50),
}
"""Share of each of KINDS."""
MERGE = 4
"""Patches of one visual token."""


def mix(name: str, count: int, seed: int) -> Sizes:
    """``count`` samples of the mix ``name``, with a column ``pictures``: a volume is a picture a slice for most peers.

    Images have 6 to 20 visual tokens a side, volumes 4 to 14 slabs of 8 to 12 tokens a side; texts are lognormal.
    """
    rng = np.random.default_rng(seed)
    kind = rng.choice(len(KINDS), count, p=MIXES[name])
    image = rng.integers(6, 21, count) * rng.integers(6, 21, count)
    slabs = rng.integers(4, 15, count)
    volume = slabs * rng.integers(8, 13, count) * rng.integers(8, 13, count)
    visual = np.select([kind < 2, kind == 3], [image, volume], 0)
    words = np.select(
        [kind == 0, kind == 1, kind == 2],
        [rng.integers(25, 90, count), rng.lognormal(5.7, 0.6, count).clip(60, 1600),
         rng.lognormal(6.1, 0.7, count).clip(50, 3500)],
        rng.lognormal(5.3, 0.5, count).clip(40, 1200),
    ).astype(np.int64)  # fmt: skip
    return {
        "tokens": words + visual, "patches": visual * MERGE, "supervised": words // 3 + 1, "visual_tokens": visual,
        "visual_tokens_made": visual, "patches_squared": (visual * MERGE) ** 2,
        "pictures": np.select([kind < 2, kind == 3], [1, 2 * slabs], 0),
    }  # fmt: skip
