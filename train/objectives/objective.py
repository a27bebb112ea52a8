"""What an objective is: a pack in, a sum and a count out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medvlm.model.batch import IGNORED, PackedBatch

Forward = Callable[..., object]


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


def token_log_probabilities(model: nn.Module, batch: PackedBatch) -> tuple[Tensor, Tensor]:
    """Log-probability of every supervised token; logits are made at those positions only.

    Returns:
        (N,) float32 log-probabilities, and (N,) the position of each in the pack.
    """
    where = (batch.targets != IGNORED).nonzero().squeeze(1)  # (N,)
    logits = model(**batch.model_inputs(), logits_to_keep=where).logits[0].float()  # (N, vocabulary)
    loss = F.cross_entropy(logits, batch.targets[where], reduction="none")
    return -loss, where


def sums_per_sample(values: Tensor, where: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Sum values (N,) at pack positions (N,) over each of the S samples: (S,)."""
    sample = torch.searchsorted(cu_seqlens[1:].to(where.dtype), where, right=True)
    return torch.zeros(len(cu_seqlens) - 1, device=values.device).index_add(0, sample, values)
