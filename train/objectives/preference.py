"""Preference optimisation over packs of (chosen, rejected) pairs; the reference is the model with adapters off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from medvlm.model.batch import IGNORED, PackedBatch
from medvlm.model.log_probabilities import sums_per_sample, token_log_probabilities
from medvlm.train.engine import Engine
from medvlm.train.lora import adapters_off
from medvlm.train.objectives.objective import Loss, Objective
from medvlm.train.objectives.preference_losses import STEP_WIDE, Pairs, StepValues, preference_loss, rewards
from medvlm.train.objectives.unrelated_answers import with_unrelated_answers
from medvlm.train.settings.preference import PreferenceConfig


@dataclass(frozen=True, kw_only=True)
class _Prepared(PackedBatch):
    """A pack whose reference has been asked: ``reference`` (2B,) sums of log-probabilities, or None."""

    reference: Tensor | None = None


def encodes_the_same(module: nn.Module) -> bool:
    """Whether ``module.encode_pack`` gives the same with adapters on and off, and nothing in it is trained."""
    return not any(
        parameter.requires_grad and module.component_of(name) in module.encode_covers  # type: ignore[operator]
        for name, parameter in module.named_parameters()
    )


class Preference(Objective):
    """One item is one pair; chosen and rejected of a pair stand next to each other in the pack.

    A visual is encoded once for all that is asked about it: both sides of a pair share it in the pack, and policy and
    reference (and what a step-wide quantity needs) share the pack's features where nothing of the encoder is adapted.

    Args:
        config: losses and their strength.
        module: the model itself, whose adapters are switched off for the reference.
    """

    def __init__(self, config: PreferenceConfig, module: nn.Module) -> None:
        self.config, self.module = config, module
        self.prepares = bool(STEP_WIDE & set(config.weights))
        self.shares = encodes_the_same(module)
        self.step = StepValues()

    def prepare(self, engine: Engine, packs: Sequence[PackedBatch]) -> list[PackedBatch]:
        """What BCO and KTO need to know of the whole step, by passes without gradient: the mean reward of all answers,
        and the divergence from the reference under answers to other prompts."""
        if not self.prepares:
            return list(packs)
        others = with_unrelated_answers(packs) if "kto" in self.config.weights else None
        prepared = []
        told = torch.zeros(4, dtype=torch.float64)  # rewards and their number, log-ratios and theirs
        for number, pack in enumerate(packs):
            features = self._encoded(engine.model, pack.to(engine.device)).features
            kept = replace(pack, features=features, patches=pack.patches if features is None else pack.patches[:0])
            reference = None
            if "bco" in self.config.weights:
                reference, gains = self._gains(engine, kept)
                told[0] += self.config.beta * float(gains.sum())
                told[1] += gains.numel()
            if others is not None:
                other = replace(others[number], features=kept.features, patches=kept.patches)
                gains = self._gains(engine, other)[1]
                told[2] += float(gains.sum())
                told[3] += gains.numel()
            prepared.append(_Prepared(**{**vars(kept), "reference": reference}))
        reward, answers, divergence, unrelated = engine.sum_over_ranks(told).tolist()
        self.step = StepValues(reward=reward / max(answers, 1), divergence=max(divergence / max(unrelated, 1), 0.0))
        return list(prepared)

    def _gains(self, engine: Engine, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """(2B,) log-probabilities by the reference, and (pairs, 2) log of policy over reference of complete pairs."""
        here = batch.to(engine.device)
        reference = self._reference(engine.model, here)
        gains = (self._policy(engine.model, here) - reference).view(-1, 2)
        return reference, gains[_complete(here)].double()

    def count(self, batch: PackedBatch) -> int:
        return int(_complete(batch).sum())

    def __call__(self, model: nn.Module, batch: PackedBatch) -> Loss:
        reference = None
        if self.config.needs_reference:
            batch = self._encoded(model, batch)
            reference = self._reference(model, batch).view(-1, 2)
        log_probabilities, where = token_log_probabilities(model, batch)
        policy = sums_per_sample(log_probabilities, where, batch.cu_seqlens).view(-1, 2)
        lengths = sums_per_sample(torch.ones_like(log_probabilities), where, batch.cu_seqlens).view(-1, 2)
        pairs = Pairs(policy=policy, reference=reference, lengths=lengths.clamp(min=1))
        complete = _complete(batch)
        losses = torch.where(complete, preference_loss(pairs, self.config, self.step), 0.0)
        return Loss(total=losses.sum(), metrics=self._metrics(pairs, lengths, complete))

    def _metrics(self, pairs: Pairs, lengths: Tensor, complete: Tensor) -> dict[str, float]:
        with torch.no_grad():
            chosen, rejected = rewards(pairs, self.config)[complete].unbind(dim=1)
            likelier = pairs.policy[:, 0] > pairs.policy[:, 1]
            found = {
                "margin": chosen - rejected,
                "reward_accuracy": chosen > rejected,
                "chosen_reward": chosen,
                "rejected_reward": rejected,
                "chosen_over_rejected": likelier[complete],
                "chosen_tokens": lengths[complete, 0],
                "rejected_tokens": lengths[complete, 1],
            }
            if "kto" in self.config.weights:
                found["divergence"] = torch.full_like(chosen, self.step.divergence)
            if "bco" in self.config.weights:
                found["reward_shift"] = torch.full_like(chosen, self.step.reward)
            sums = torch.stack([values.double().sum() for values in found.values()]).tolist()
        return dict(zip(found, sums, strict=True))

    def _encoded(self, model: nn.Module, batch: PackedBatch) -> PackedBatch:
        """``batch`` with its features, where policy and reference may share them."""
        if not self.shares or batch.features is not None:
            return batch
        with torch.no_grad():
            return replace(batch, features=model(run=lambda inner: inner.encode_pack(batch)))

    def _reference(self, model: nn.Module, batch: PackedBatch) -> Tensor:
        """(2B,) log-probabilities of the answers by the model as it was."""
        if isinstance(batch, _Prepared) and batch.reference is not None:
            return batch.reference
        with adapters_off(self.module):
            return self._policy(model, batch)

    @torch.no_grad()
    def _policy(self, model: nn.Module, batch: PackedBatch) -> Tensor:
        """(2B,) log-probabilities of the answers, without a gradient."""
        return sums_per_sample(*token_log_probabilities(model, batch), batch.cu_seqlens)


def _complete(batch: PackedBatch) -> Tensor:
    """(B,) whether both sides of a pair have something to score: those of a pack that could not be read have not."""
    where = (batch.targets != IGNORED).nonzero().squeeze(1)
    scored = sums_per_sample(torch.ones_like(where), where, batch.cu_seqlens)  # (2B,)
    return (scored.view(-1, 2) > 0).all(dim=1)
