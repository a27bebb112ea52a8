"""Log-probabilities of what a pack supervises: the arithmetic that losses and pair scores share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from medvlm.model.batch import IGNORED, PackedBatch
from medvlm.model.chunked_loss import log_probabilities, of_logits, weighted_sum


def token_log_probabilities(model: nn.Module, batch: PackedBatch, *, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probability of every supervised token; ``chunked_loss`` says what it costs.

    Args:
        model: of an engine, or as loaded.
        temperature: logits are divided by it.

    Returns:
        (N,) float32 log-probabilities, and (N,) the position of each in the pack.
    """
    values, _, where = _run(model, batch, temperature, with_entropy=False)
    return values, where


def token_log_probabilities_and_entropies(
    model: nn.Module, batch: PackedBatch, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """As ``token_log_probabilities``, with the entropy (N,) of each distribution, in nats and without a gradient,
    before the positions."""
    values, entropies, where = _run(model, batch, temperature, with_entropy=True)
    assert entropies is not None
    return values, entropies, where


def summed_log_probability(model: nn.Module, batch: PackedBatch, weights: Tensor | None = None) -> Tensor:
    """Sum over the supervised tokens of weight times log-probability, a float32 scalar.

    Saves one of the four products of a trained output layer, because its gradient is known up to a factor before the
    backward pass.

    Args:
        weights: (N,) without a gradient; None: all 1.
    """
    where = supervised_positions(batch)

    def run(inner: Any) -> Tensor:
        targets, head = batch.targets[where], inner.language_head()
        chosen = torch.ones_like(targets, dtype=torch.float32) if weights is None else weights.float()
        if head is None:
            return (_whole(inner, batch, where, 1.0, with_entropy=False)[0] * chosen).sum()
        hidden = inner.last_hidden_state(**batch.model_inputs())[0, where]  # (N, hidden)
        return weighted_sum(head, hidden, targets, chosen)

    return model(run=run)


def supervised_positions(batch: PackedBatch) -> Tensor:
    """(N,) positions of the tokens that carry loss."""
    return (batch.targets != IGNORED).nonzero().squeeze(1)


def _run(
    model: nn.Module, batch: PackedBatch, temperature: float, *, with_entropy: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    where = supervised_positions(batch)

    def run(inner: Any) -> tuple[Tensor, Tensor | None]:
        head = inner.language_head()
        if head is None:
            return _whole(inner, batch, where, temperature, with_entropy=with_entropy)
        hidden = inner.last_hidden_state(**batch.model_inputs())[0, where]  # (N, hidden)
        targets = batch.targets[where]
        return log_probabilities(head, hidden, targets, temperature=temperature, with_entropy=with_entropy)

    values, entropies = model(run=run)
    return values, entropies, where


def _whole(
    model: Any, batch: PackedBatch, where: Tensor, temperature: float, *, with_entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """By the logits of all supervised tokens at once."""
    logits = model(**batch.model_inputs(), logits_to_keep=where).logits[0]  # (N, vocabulary)
    return of_logits(logits, batch.targets[where], temperature, with_entropy=with_entropy)


def sums_per_sample(values: Tensor, where: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Sum values (N,) at pack positions (N,) over each of the S samples: (S,)."""
    sample = torch.searchsorted(cu_seqlens[1:].to(where.dtype), where, right=True)
    return torch.zeros(len(cu_seqlens) - 1, dtype=values.dtype, device=values.device).index_add(0, sample, values)
