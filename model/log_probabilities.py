"""Log-probabilities of what a pack supervises: the arithmetic that losses and pair scores share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medvlm.model.batch import IGNORED, PackedBatch


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
    return torch.zeros(len(cu_seqlens) - 1, dtype=values.dtype, device=values.device).index_add(0, sample, values)
