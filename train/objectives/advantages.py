"""How much better an answer is than its group, and the losses that follow: plain functions of numbers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from medvlm.train.settings.reinforcement import ReinforcementConfig

_DEVIATION = 1e-4
"""Added to a group's deviation, as TRL does."""


def advantages_of(rewards: Tensor, config: ReinforcementConfig) -> Tensor:
    """Reward minus the mean of its group, and for grpo and dapo divided by the group's deviation.

    Args:
        rewards: (prompts, group).

    Returns:
        (prompts, group); equation in section 4.1.2 of arXiv:2402.03300, without the deviation as in arXiv:2503.20783.
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    if config.algorithm == "dr_grpo":
        return centred
    return centred / (rewards.std(dim=1, keepdim=True) + _DEVIATION)


def without_signal(rewards: Tensor) -> Tensor:
    """(prompts,) groups of (prompts, group) whose answers are all worth the same: nothing can be learnt of them."""
    return torch.isclose(rewards.std(dim=1), rewards.new_zeros(()))


def overlong_punishment(tokens: Tensor, config: ReinforcementConfig) -> Tensor:
    """Equation 13 of arXiv:2503.14476 for answers of so many tokens: from 0, where the buffer begins, down to -1."""
    if not config.overlong_buffer:
        return torch.zeros_like(tokens, dtype=torch.float64)
    begins = config.max_new_tokens - config.overlong_buffer
    return -((tokens.double() - begins) / config.overlong_buffer).clamp(0, 1)


class TokenLosses(NamedTuple):
    """Of N tokens.

    Attributes:
        losses: (N,).
        divergence: (N,) k3 estimate of the divergence from the reference; zeros without one.
        clipped: (N,) whether the ratio is beyond the clip on the side where that stops the gradient.
    """

    losses: Tensor
    divergence: Tensor
    clipped: Tensor


def token_losses(
    new: Tensor, old: Tensor, advantages: Tensor, reference: Tensor | None, config: ReinforcementConfig
) -> TokenLosses:
    """The clipped surrogate of each token (PPO, arXiv:1707.06347, equation 7), and the pull to the reference.

    Args:
        new: (N,) log-probabilities with gradient.
        old: (N,) of the policy that the answers are held against.
        advantages: (N,) of the answer that each token belongs to.
        reference: (N,) log-probabilities of the reference; the estimator is k3 of
            http://joschu.net/blog/kl-approx.html.
    """
    ratio = torch.exp(new - old)
    bounded = ratio.clamp(1 - config.clip_low, 1 + config.highest_gain)
    losses = -torch.min(ratio * advantages, bounded * advantages)
    divergence = torch.zeros_like(new)
    if reference is not None:
        gap = reference - new
        divergence = torch.exp(gap) - gap - 1
        losses = losses + config.beta * divergence
    low = (ratio < 1 - config.clip_low) & (advantages < 0)
    high = (ratio > 1 + config.highest_gain) & (advantages > 0)
    return TokenLosses(losses=losses, divergence=divergence.detach(), clipped=(low | high).detach())


def token_weights(lengths: Tensor, config: ReinforcementConfig) -> Tensor:
    """(S,) what each token of an answer of so many tokens weighs in the sum over ``items_of``."""
    match config.algorithm:
        case "grpo":
            return 1 / lengths.clamp(min=1)
        case "dapo":
            return torch.ones_like(lengths)
        case "dr_grpo":
            return torch.full_like(lengths, 1 / config.max_new_tokens)
    raise ValueError(f"unknown algorithm {config.algorithm!r}")


def items_of(answers: int, tokens: int, config: ReinforcementConfig) -> float:
    """What the sum is divided by: tokens for dapo, answers for the others."""
    return float(tokens if config.algorithm == "dapo" else answers)
