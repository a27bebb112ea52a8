"""What an objective is: a pack in, a sum and a count out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from medvlm.model.batch import PackedBatch


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Loss of one pack.

    Attributes:
        total: scalar; the sum over ``count`` items, so that any split into packs gives the same gradient.
        metrics: sums over the items of this pack, logged as means.
    """

    total: Tensor
    metrics: dict[str, float] = field(default_factory=dict)


class Objective(Protocol):
    """Supervised, preference, ...: all over the same packed forward."""

    def count(self, batch: PackedBatch) -> int:
        """Items that the loss of ``batch`` sums over: known before the forward pass."""

    def __call__(self, model: nn.Module, batch: PackedBatch) -> Loss:
        """Run ``model`` (the engine's wrapped module) on ``batch``."""
