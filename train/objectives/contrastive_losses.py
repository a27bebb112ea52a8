"""CLIP's and SigLIP's losses over a pool of pairs, and which of them are no negatives of each other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from medvlm.data_recipes.sample import Sample


def clip_losses(visual: Tensor, text: Tensor, scale: Tensor, same: Tensor | None = None) -> Tensor:
    """Loss of each pair: how badly its text is found among all texts, and its visual among all visuals.

    Their mean is open_clip's ClipLoss (CLIP: arXiv:2103.00020, figure 3).

    Args:
        visual, text: (N, size), of length 1.
        scale: (1,) of the cosines.
        same: (N, N) True where text j is also right for visual i; such a pair is left out of both sums.

    Returns:
        (N,) losses.
    """
    logits = scale * visual @ text.T
    if same is not None:
        logits = logits.masked_fill(same, float("-inf"))
    right = torch.arange(len(logits), device=logits.device)
    finds_text = F.cross_entropy(logits, right, reduction="none")
    finds_visual = F.cross_entropy(logits.T, right, reduction="none")
    return (finds_text + finds_visual) / 2


def siglip_losses(visual: Tensor, text: Tensor, scale: Tensor, bias: Tensor, same: Tensor | None = None) -> Tensor:
    """Loss of each visual: the sum over all texts of whether it belongs to it.

    Their mean is open_clip's SigLipLoss (SigLIP: arXiv:2303.15343, equation 2).

    Args:
        visual, text, scale, same: as in ``clip_losses``.
        bias: (1,) of the logits.

    Returns:
        (N,) losses.
    """
    logits = scale * visual @ text.T + bias
    belongs = 2 * torch.eye(len(logits), device=logits.device, dtype=logits.dtype) - 1
    losses = -F.logsigmoid(belongs * logits)
    return (losses if same is None else losses.masked_fill(same, 0.0)).sum(dim=1)


def identity(sample: Sample, text: str) -> list[int]:
    """Three numbers that are equal when two samples are of one study, say the same, or show the same."""
    shown = sorted(f"{ref.sha256 or ref.path} {sorted(ref.options.items())}" for ref in sample.visuals())
    return [
        _number(f"{sample.source} {sample.patient_id} {sample.study_id}"),
        _number(" ".join(text.split())),
        _number("\n".join(shown)),
    ]


def no_negatives(identities: Tensor) -> Tensor:
    """(N, 3) numbers of ``identity`` -> (N, N) which other pairs are no negatives; False on the diagonal."""
    same = (identities[:, None] == identities[None, :]).any(dim=2)
    return same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)


def held(log_scale: Tensor, gradient: Tensor, largest: float) -> Tensor:
    """``gradient`` without the part that would push a learned scale out of [1, exp(largest)].

    open_clip clamps the parameter after each update. Here it belongs to the engine, which may have cut it in pieces, so
    it is clamped where it is used, and what would push it further out is dropped.
    """
    above, below = log_scale >= largest, log_scale <= 0
    outward = (above & (gradient < 0)) | (below & (gradient > 0))  # the update goes against the gradient
    return torch.where(outward, torch.zeros_like(gradient), gradient)


def rows_of_all_ranks(rows: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """Tensors (n, ...) of this rank -> the same of every rank; n may differ. All ranks must call it.

    Args:
        rows: of equal length, each of any width and type.
    """
    import torch.distributed as dist

    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [tuple(rows)]
    world = dist.get_world_size()
    count = torch.tensor([len(rows[0])], device=rows[0].device)
    counts = [torch.empty_like(count) for _ in range(world)]
    dist.all_gather(counts, count)
    lengths = [int(number) for number in counts]
    gathered = []
    for tensor in rows:
        padded = tensor.new_zeros(max(lengths), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in range(world)]
        dist.all_gather(parts, padded)
        gathered.append([part[:length] for part, length in zip(parts, lengths, strict=True)])
    return list(zip(*gathered, strict=True))


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)
