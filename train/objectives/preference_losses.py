"""Preference losses as functions of log-probabilities: one number for each pair.

All of them see sums of log-probabilities over the tokens of an answer, so that they are tested without a model. Names
are those of TRL, whose numbers they equal; where a loss needs a quantity of the whole batch, TRL takes it from a
micro-batch and this code from the whole step, over all packs and ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from medvlm.train.settings.preference import PreferenceConfig

STEP_WIDE = frozenset({"bco", "kto"})
"""Losses that read a ``StepValues``: pairs are coupled through it, so it is taken over the whole step."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Answers of B pairs; column 0 is chosen, column 1 rejected.

    Attributes:
        policy: (B, 2) sum of the log-probabilities of an answer's tokens.
        reference: (B, 2) the same by the reference model; None when no loss needs it.
        lengths: (B, 2) tokens of an answer, at least 1.
    """

    policy: Tensor
    reference: Tensor | None
    lengths: Tensor

    @property
    def gains(self) -> Tensor:
        """(B, 2) log of policy over reference."""
        if self.reference is None:
            raise ValueError("this loss compares with a reference model, whose log-probabilities were not given")
        return self.policy - self.reference

    @property
    def mean_gains(self) -> Tensor:
        """(B, 2) the same as a mean over the tokens of each answer."""
        return self.gains / self.lengths

    @property
    def means(self) -> Tensor:
        """(B, 2) mean log-probability of a token by the policy."""
        return self.policy / self.lengths


@dataclass(frozen=True, kw_only=True)
class StepValues:
    """What all pairs of an optimizer step share; constants of the gradient.

    Attributes:
        reward: mean implicit reward of all answers of the step (BCO's shift).
        divergence: estimate of KL(policy, reference), not below 0 (KTO's reference point).
    """

    reward: float = 0.0
    divergence: float = 0.0


def _margin(scores: Tensor) -> Tensor:
    return scores[:, 0] - scores[:, 1]


def _smoothed(logits: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of the preference when a share of the pairs is assumed to be flipped."""
    return -(1 - smoothing) * F.logsigmoid(logits) - smoothing * F.logsigmoid(-logits)


def sigmoid(pairs: Pairs, config: PreferenceConfig, step: StepValues) -> Tensor:
    """DPO: arXiv:2305.18290, equation 7; with label smoothing conservative DPO."""
    return _smoothed(config.beta * _margin(pairs.gains), config.label_smoothing)


def sigmoid_norm(pairs: Pairs, config: PreferenceConfig, step: StepValues) -> Tensor:
    """Length-normalised DPO (Tülu 3, arXiv:2411.15124, equation 6): DPO of mean instead of summed log-ratios."""
    return -F.logsigmoid(config.beta * _margin(pairs.mean_gains))


def robust(pairs: Pairs, config: PreferenceConfig, step: StepValues) -> Tensor:
    """Robust DPO: arXiv:2403.00409, equation 3; unbiased when ``label_smoothing`` of the pairs are flipped."""
    logits, smoothing = config.beta * _margin(pairs.gains), config.label_smoothing
    kept, flipped = -F.logsigmoid(logits), -F.logsigmoid(-logits)
    return ((1 - smoothing) * kept - smoothing * flipped) / (1 - 2 * smoothing)


def ipo(pairs: Pairs, config: PreferenceConfig, step: StepValues) -> Tensor:
    """IPO: arXiv:2310.12036, equation 17, of means over tokens.

    A squared margin of sums would grow with the length of the answers; the authors average, as TRL found out.
    """
    return (_margin(pairs.mean_gains) - 1 / (2 * config.beta)) ** 2


def hinge(pairs: Pairs, config: PreferenceConfig, step: StepValues) -> Tensor:
    """SLiC: arXiv:2305.10425, the calibration loss of section 2.2, of log-ratios (RSO, arXiv:2309.06657)."""
    return torch.relu(1 - config.beta * _margin(pairs.gains))


def bco(pairs: Pairs, config: PreferenceConfig, step: StepValues) -> Tensor:
    """BCO: arXiv:2404.04656, the binary cross-entropy of rewards that are shifted by their mean.

    The paper and InternVL's MPO follow the shift by a moving average over the batches of a process, and TRL 1.16 has
    none (``bco_pair``). Here it is the mean of the step itself, over all packs and ranks: nothing has to be remembered
    over a resume, and ranks cannot shift by different numbers.
    """
    rewards = config.beta * pairs.gains - step.reward
    return -F.logsigmoid(rewards[:, 0]) - F.logsigmoid(-rewards[:, 1])


def bco_pair(pairs: Pairs, config: PreferenceConfig, step: StepValues) -> Tensor:
    """BCO without its shift, as in TRL 1.16."""
    return bco(pairs, config, StepValues())


def kto(pairs: Pairs, config: PreferenceConfig, step: StepValues) -> Tensor:
    """KTO: arXiv:2402.01306, equation 7; of a pair the mean of its two answers.

    The reference point is estimated from answers under other prompts, as in the paper. TRL 1.16 takes the next example
    of a micro-batch for the other prompt, averages over micro-batches of equal size on each rank, and follows each
    micro-batch by itself; here it is the mean over the whole step, so that the split into packs changes nothing.
    """
    gains = pairs.gains
    desirable = 1 - torch.sigmoid(config.beta * (gains[:, 0] - step.divergence))
    undesirable = 1 - torch.sigmoid(config.beta * (step.divergence - gains[:, 1]))
    return (config.desirable_weight * desirable + config.undesirable_weight * undesirable) / 2


def orpo(pairs: Pairs, config: PreferenceConfig, step: StepValues) -> Tensor:
    """ORPO: arXiv:2403.07691, equations 6 and 7; ``beta`` is the paper's lambda.

    The supervised part is the mean token loss of the chosen answer of each pair. TRL 1.16 has it over prompt and
    answer, as a mean over all tokens of a micro-batch.
    """
    means = pairs.means
    odds = means - _log1mexp(means)  # (B, 2) log of the odds
    return -means[:, 0] - config.beta * F.logsigmoid(_margin(odds))


def simpo(pairs: Pairs, config: PreferenceConfig, step: StepValues) -> Tensor:
    """SimPO: arXiv:2405.14734, equation 6; ``margin`` is its gamma."""
    return _smoothed(config.beta * _margin(pairs.means) - config.margin, config.label_smoothing)


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, exact near 0 and far from it; of a certain answer the log of what a float can tell."""
    x = x.clamp(max=-torch.finfo(x.dtype).eps)
    return torch.where(x < -0.693147, torch.log1p(-torch.exp(x)), torch.log(-torch.expm1(x)))


LOSSES: dict[str, Callable[[Pairs, PreferenceConfig, StepValues], Tensor]] = {
    "sigmoid": sigmoid,
    "sigmoid_norm": sigmoid_norm,
    "robust": robust,
    "ipo": ipo,
    "hinge": hinge,
    "bco": bco,
    "bco_pair": bco_pair,
    "kto": kto,
    "orpo": orpo,
    "simpo": simpo,
}


def preference_loss(pairs: Pairs, config: PreferenceConfig, step: StepValues) -> Tensor:
    """(B,) the weighted sum of the losses of ``config`` and of the chosen answer's mean token loss."""
    total = -config.supervised_weight * pairs.means[:, 0] if config.supervised_weight else pairs.policy.new_zeros(())
    for name, weight in config.weights.items():
        total = total + weight * LOSSES[name](pairs, config, step)
    return total


def rewards(pairs: Pairs, config: PreferenceConfig) -> Tensor:
    """(B, 2) implicit rewards: beta times the log-ratio, or without a reference times the mean log-probability."""
    return config.beta * (pairs.means if pairs.reference is None else pairs.gains)
