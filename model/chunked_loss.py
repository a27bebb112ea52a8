"""Log-probabilities of targets without the logits of all of them: some rows at a time, with exact gradients.

Three ways, all equal to the full logits:

- A frozen output layer: the gradient of a token's log-probability with regard to its hidden state is made in the
  forward pass, when its logits are there anyway, and multiplied in the backward pass by whatever comes from above. So
  nothing is computed twice, for any loss.
- A weighted sum whose weights are known before: the gradient of the output layer is made in the forward pass as well
  (the idea is Liger's; Hsu et al. 2024, arXiv:2410.10989). One product less than computing logits again.
- Otherwise logits are computed again in the backward pass (activation checkpointing of each part).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from medvlm.model.language_head import LanguageHead

FEWEST_ROWS = 256
"""Fewer rows would read the weight of a large vocabulary more often than the products take."""


def log_probabilities(
    head: LanguageHead, hidden: Tensor, targets: Tensor, *, temperature: float = 1.0, with_entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each target, and the entropy of the distribution that it stands in.

    Args:
        hidden: (N, hidden); targets: (N,) int64.
        temperature: logits are divided by it.

    Returns:
        (N,) float32, and (N,) float32 in nats and without a gradient, or None when it is not asked for.
    """
    grows = torch.is_grad_enabled()
    if grows and hidden.requires_grad and not head.trained and not head.partitioned:
        values, entropies = _RowGradients.apply(hidden, targets, head, temperature, with_entropy)
        return values, entropies if with_entropy else None
    parts = _parts(head, hidden)
    again = grows and (hidden.requires_grad or bool(head.trained))
    found = []
    for rows, wanted in zip(hidden.tensor_split(parts), targets.tensor_split(parts), strict=True):
        given = (head, rows, wanted, temperature, with_entropy)
        found.append(checkpoint(_of_rows, *given, use_reentrant=False) if again else _of_rows(*given))
    values, entropies = (torch.cat(part) for part in zip(*found, strict=True))
    return values, entropies if with_entropy else None


def weighted_sum(head: LanguageHead, hidden: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The sum of weight times log-probability over all targets: a float32 scalar.

    Args:
        hidden: (N, hidden); targets: (N,) int64; weights: (N,) float32, without a gradient.
    """
    if not torch.is_grad_enabled() or not head.trained or head.partitioned:
        return (log_probabilities(head, hidden, targets)[0] * weights).sum()
    return _WeightedSum.apply(hidden, targets, weights, head, *head.trained)


def _of_rows(
    head: LanguageHead, hidden: Tensor, targets: Tensor, temperature: float, with_entropy: bool
) -> tuple[Tensor, Tensor]:
    values, entropies = of_logits(head.logits(hidden), targets, temperature, with_entropy=with_entropy)
    return values, values.new_zeros(0) if entropies is None else entropies


def of_logits(
    logits: Tensor, targets: Tensor, temperature: float = 1.0, *, with_entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """As ``log_probabilities``, from the logits (N, vocabulary)."""
    scores = _scores(logits, temperature)
    return _at(scores, targets), _entropies(scores.detach()) if with_entropy else None


def _scores(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """(N, vocabulary) float32 log-probabilities."""
    if temperature != 1:
        logits = logits.float() / temperature
    return F.log_softmax(logits, dim=1, dtype=torch.float32)


def _at(scores: Tensor, targets: Tensor) -> Tensor:
    return scores.gather(1, targets[:, None])[:, 0]


def _entropies(scores: Tensor) -> Tensor:
    # A masked logit has the log-probability -inf, and 0 * -inf is no number.
    return -(scores.exp() * scores).nan_to_num(0.0).sum(dim=1)


def _parts(head: LanguageHead, hidden: Tensor) -> int:
    """In how many parts the rows are taken; at least one, so that a trained layer gets its gradient of zero.

    A part's logits are no larger than what is held anyway: the hidden states, or the gradient of the layer.
    """
    count, width = hidden.shape
    rows = math.ceil(count * width / head.vocabulary)
    if head.trained:
        rows = max(rows, width // 4)
    parts = max(1, math.ceil(count / max(rows, FEWEST_ROWS)))
    if head.partitioned and dist.is_initialized() and dist.get_world_size() > 1:
        # Each call gathers the weight from all ranks, so all must make as many.
        most = torch.tensor(parts, device=hidden.device)
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
        parts = int(most)
    return parts


def _minus_probabilities(scores: Tensor, targets: Tensor) -> Tensor:
    """Gradient of ``_at`` with regard to the logits, in the place of ``scores``: one-hot minus probabilities."""
    gradient = scores.exp_().neg_()
    gradient.scatter_add_(1, targets[:, None], torch.ones_like(gradient[:, :1]))
    return gradient


def _one_part(
    head: LanguageHead,
    rows: Tensor,
    targets: Tensor,
    weights: Tensor | None,
    temperature: float,
    with_entropy: bool,
    trained: list[Tensor],
) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...]]:
    """Log-probabilities, entropies, and gradients of rows and layer; a function, so that its logits go before the next
    are made."""
    with torch.enable_grad():
        leaf = rows.detach().requires_grad_()
        logits = head.logits(leaf)
    scores = _scores(logits.detach(), temperature)
    values, entropies = _at(scores, targets), _entropies(scores) if with_entropy else None
    above = _minus_probabilities(scores, targets)
    if weights is not None:
        above.mul_(weights[:, None])
    if temperature != 1:
        above.div_(temperature)
    return values, entropies, torch.autograd.grad(logits, [leaf, *trained], above.to(logits.dtype))


class _RowGradients(torch.autograd.Function):
    """A frozen layer: a log-probability depends on its own row only, so its gradient is one row, made at once."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, targets: Tensor, head: LanguageHead, temperature: float, with_entropy: bool
    ) -> tuple[Tensor, Tensor]:
        gradient = torch.empty_like(hidden)  # (N, hidden)
        values = hidden.new_empty(len(hidden), dtype=torch.float32)
        entropies = hidden.new_zeros(len(hidden), dtype=torch.float32)
        start = 0
        for rows, wanted in _split(_parts(head, hidden), hidden, targets):
            place = slice(start, start + len(rows))
            start += len(rows)
            made = _one_part(head, rows, wanted, None, temperature, with_entropy, [])
            values[place], found, (gradient[place],) = made
            if found is not None:
                entropies[place] = found
            del made, found
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(entropies)
        return values, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (gradient,) = ctx.saved_tensors
        return (gradient * above[:, None]).to(gradient.dtype), None, None, None, None


class _WeightedSum(torch.autograd.Function):
    """A trained layer and weights that are known: gradients of rows and layer, made at once."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, targets: Tensor, weights: Tensor, head: LanguageHead, *trained: Tensor
    ) -> Tensor:
        gradient = torch.empty_like(hidden)  # (N, hidden)
        total = hidden.new_zeros((), dtype=torch.float32)
        # Sums of parts in half precision would round once a part.
        sums = [torch.zeros_like(p, dtype=torch.float32) for p in trained]
        start = 0
        for rows, wanted, weight in _split(_parts(head, hidden), hidden, targets, weights):
            place = slice(start, start + len(rows))
            start += len(rows)
            found, _, (gradient[place], *parts) = _one_part(head, rows, wanted, weight, 1.0, False, list(trained))
            total += (found * weight).sum()
            for total_of_one, part in zip(sums, parts, strict=True):
                total_of_one += part
            del parts, part  # or the next part's would lie beside it
        ctx.gradients = [gradient, *(s.to(p.dtype) for s, p in zip(sums, trained, strict=True))]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        if ctx.gradients is None:
            raise RuntimeError("the sum of log-probabilities goes backward once only: call it again for another pass")
        hidden, *trained = (gradient.mul_(above) for gradient in ctx.gradients)
        ctx.gradients = None
        return hidden, None, None, None, *trained


def _split(parts: int, *tensors: Tensor) -> zip[tuple[Tensor, ...]]:
    return zip(*(tensor.tensor_split(parts) for tensor in tensors), strict=True)
