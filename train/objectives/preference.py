"""Preference optimisation over packs of (chosen, rejected) pairs; the reference is the model with adapters off."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medvlm.model.batch import IGNORED, PackedBatch
from medvlm.model.log_probabilities import sums_per_sample, token_log_probabilities
from medvlm.train.objectives.objective import Loss, Objective
from medvlm.train.settings.preference import PreferenceConfig


def preference_loss(margin: Tensor, config: PreferenceConfig) -> Tensor:
    """Loss of each pair from its margin.

    Args:
        margin: (B,) [log pi(chosen) - log ref(chosen)] - [log pi(rejected) - log ref(rejected)]; for ipo each of the
            two differences is a mean over the tokens of its answer.
        config: which loss. sigmoid: DPO, equation 7 of arXiv:2305.18290, with label smoothing as conservative DPO;
            robust: arXiv:2403.00409, equation 3; ipo: equation 17 of arXiv:2310.12036; hinge: SLiC, arXiv:2305.10425.

    Returns:
        (B,) losses.
    """
    beta, smoothing = config.beta, config.label_smoothing
    won, lost = -F.logsigmoid(beta * margin), -F.logsigmoid(-beta * margin)
    match config.loss:
        case "sigmoid":
            return (1 - smoothing) * won + smoothing * lost
        case "robust":
            return ((1 - smoothing) * won - smoothing * lost) / (1 - 2 * smoothing)
        case "ipo":
            return (margin - 1 / (2 * beta)) ** 2
        case "hinge":
            return torch.relu(1 - beta * margin)
    raise ValueError(f"unknown preference loss {config.loss!r}")


def _complete(batch: PackedBatch) -> Tensor:
    """(B,) whether both sides of a pair have something to score: those of a pack that could not be read have not."""
    where = (batch.targets != IGNORED).nonzero().squeeze(1)
    scored = sums_per_sample(torch.ones_like(where), where, batch.cu_seqlens)  # (2B,)
    return (scored.view(-1, 2) > 0).all(dim=1)


class Preference(Objective):
    """One item is one pair; chosen and rejected of a pair stand next to each other in the pack.

    Args:
        config: loss and its strength.
        adapters_off: context in which the model is the reference.
    """

    def __init__(self, config: PreferenceConfig, adapters_off: Callable[[], AbstractContextManager]) -> None:
        self.config, self.adapters_off = config, adapters_off

    def count(self, batch: PackedBatch) -> int:
        return int(_complete(batch).sum())

    def __call__(self, model: nn.Module, batch: PackedBatch) -> Loss:
        with torch.no_grad(), self.adapters_off():
            reference = sums_per_sample(*token_log_probabilities(model, batch), batch.cu_seqlens)  # (2B,)
        log_probabilities, where = token_log_probabilities(model, batch)
        policy = sums_per_sample(log_probabilities, where, batch.cu_seqlens)
        lengths = sums_per_sample(torch.ones_like(log_probabilities), where, batch.cu_seqlens)
        gain = policy - reference
        if self.config.loss == "ipo":
            # A squared margin of sums would grow with the length of the answers; the authors of IPO average (TRL).
            gain = gain / lengths.clamp(min=1)
        gain = gain.view(-1, 2)  # (B, chosen and rejected)
        margin = gain[:, 0] - gain[:, 1]
        losses = preference_loss(margin, self.config)
        if self.config.supervised_weight:
            losses = losses - self.config.supervised_weight * (policy / lengths.clamp(min=1)).view(-1, 2)[:, 0]
        losses = torch.where(_complete(batch), losses, 0.0)
        chosen, rejected = policy.detach().view(-1, 2).unbind(dim=1)
        return Loss(
            total=losses.sum(),
            metrics={
                "margin": float(margin.detach().sum()),
                "reward_accuracy": float((margin.detach() > 0).sum()),
                "chosen_over_rejected": float((chosen > rejected).sum()),
            },
        )
