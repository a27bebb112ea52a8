"""What a frozen encoder makes of visuals, on disk: later rounds of a stage neither read nor encode them again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medvlm.data_recipes.patch_cache import ArrayCache, outline_arrays, outline_of
from medvlm.model.processing import PatchedVisual


@dataclass(frozen=True, kw_only=True)
class NamedVisual(PatchedVisual):
    """A visual and what its features are called.

    Attributes:
        key: of ``Renderer``: content, options and settings.
        features: (P, vision_hidden) when they are known; ``patches`` then has no columns.
    """

    key: str
    features: Tensor | None = None

    def bare(self, columns: int = 0) -> NamedVisual:
        """Without rows of patches."""
        return replace(self, patches=np.empty((0, columns), np.float32))


class FeatureCache:
    """A folder of features that several processes and stages use at once; see ``ArrayCache``.

    They are kept in the type that the encoder computes in, to the bit.

    Args:
        encoder: whatever tells the encoder and its arithmetic; features of another one are never found.
        limit_bytes: None: no limit.
    """

    def __init__(self, folder: Path, encoder: str, limit_bytes: int | None = None) -> None:
        self.encoder = encoder
        self.cache = ArrayCache(folder, limit_bytes, summed=("features", "kept"))

    def get(self, key: str) -> NamedVisual | None:
        """The visual of ``key`` with its features; None when they are not there."""
        stored = self.cache.load(self._name(key))
        if stored is None:
            return None
        dtype = getattr(torch, stored["dtype"].tobytes().decode())
        rows, width = stored["shape"].tolist()
        features = torch.from_numpy(stored["features"]).view(dtype).view(rows, width)
        patches = np.empty((rows, 0), np.float32)
        return NamedVisual(key=key, features=features, patches=patches, **outline_of(stored))

    def put(self, visual: NamedVisual, features: Tensor) -> None:
        """Keep features (P, vision_hidden), on the CPU, of ``visual``."""
        name = str(features.dtype).removeprefix("torch.")
        self.cache.store(
            self._name(visual.key),
            {
                # safetensors' numpy side has no bf16: bytes.
                "features": features.contiguous().view(torch.uint8).numpy().reshape(-1),
                "shape": np.array(features.shape, np.int64),
                "dtype": np.frombuffer(name.encode(), np.uint8),
                **outline_arrays(visual),
            },
        )

    def _name(self, key: str) -> str:
        return hashlib.sha256(f"{self.encoder} {key}".encode()).hexdigest()
