"""Learning from rewards (GRPO, DAPO, Dr.GRPO): the model answers, rules mark, and better answers become likelier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from medvlm.model.batch import PackedBatch
from medvlm.model.loading import Processor
from medvlm.model.log_probabilities import (
    sums_per_sample,
    supervised_positions,
    token_log_probabilities,
    token_log_probabilities_and_entropies,
)
from medvlm.train.agreement import together
from medvlm.train.engine import Engine
from medvlm.train.lora import adapters_off
from medvlm.train.objectives.advantages import (
    advantages_of,
    items_of,
    overlong_punishment,
    token_losses,
    token_weights,
    without_signal,
)
from medvlm.train.objectives.objective import Loss, Objective
from medvlm.train.objectives.rollout_log import RolloutLog
from medvlm.train.objectives.rollouts import Prompt, RolloutBatch, Scored, empty_pack, packs_of, samples_in
from medvlm.train.objectives.sampler import OwnSampler, Sampler
from medvlm.train.objectives.server_sampler import ServerSampler
from medvlm.train.rewards import asked_of, mark
from medvlm.train.settings.reinforcement import ReinforcementConfig


@dataclass(frozen=True, kw_only=True)
class RolloutPlace:
    """What a stage tells its objective of where it runs.

    Attributes:
        folder: of the stage.
        root: that relative paths of visuals start from.
        seed: of the stage.
        start: steps that were done before: the answers of a step are a function of its number.
        tokens_per_pack, patches_per_pack: budgets of the packs that answers are trained in.
    """

    folder: Path
    root: Path
    seed: int
    start: int
    tokens_per_pack: int
    patches_per_pack: int


class Reinforcement(Objective):
    """One item is one answer (grpo, dr_grpo) or one token of an answer (dapo).

    Args:
        config: group, rewards, loss.
        processor: of the stage.
        sampler: who writes the answers.
        log: what was written, for people.
        place: where the stage runs.
    """

    prepares = True

    def __init__(
        self,
        config: ReinforcementConfig,
        processor: Processor,
        sampler: Sampler,
        log: RolloutLog,
        place: RolloutPlace,
    ) -> None:
        self.config, self.processor, self.sampler, self.log = config, processor, sampler, log
        self.place, self.step = place, place.start
        self.updates = config.updates
        self._items, self._trained = 0.0, 0.0
        self.told: Mapping[str, float] = {}

    def prepare(self, engine: Engine, packs: Sequence[PackedBatch]) -> list[PackedBatch]:
        """Answers to the prompts in ``packs``, marked, in packs: the same number of them on all ranks."""
        groups = together(partial(self._groups, engine, packs), engine.device)
        rewards = torch.tensor([[one.reward for one in group] for group in groups], dtype=torch.float64).reshape(
            len(groups), self.config.group_size
        )  # (prompts, group)
        silent = without_signal(rewards)
        together(partial(self.log.write, self.step, groups), engine.device)
        dropped = silent if self.config.algorithm == "dapo" else torch.zeros_like(silent)
        # Where all are worth the same the advantage is 0: without a pull to the reference there is nothing to compute.
        trained = ~silent if not self.config.beta else ~dropped
        counted = [one for group, drop in zip(groups, dropped.tolist(), strict=True) if not drop for one in group]
        kept = [one for group, keep in zip(groups, trained.tolist(), strict=True) if keep for one in group]
        made = packs_of(kept, self.place.tokens_per_pack, self.place.patches_per_pack)
        most = _most(engine, len(made))
        made += [empty_pack(self.processor) for _ in range(most - len(made))]
        tokens = sum(len(one.answer.tokens) for one in counted)
        made[0] = replace(made[0], items=items_of(len(counted), tokens, self.config))
        self._tell(engine, groups, rewards, silent, kept, items=made[0].items)
        self.step += 1
        return [self._scored(engine, batch) for batch in made]

    def _groups(self, engine: Engine, packs: Sequence[PackedBatch]) -> list[list[Scored]]:
        prompts = [prompt for pack in packs for prompt in self._prompts(pack)]
        groups = []
        for prompt, answers in zip(prompts, self.sampler.write(engine, prompts, self.step), strict=True):
            marks = [
                mark(
                    prompt.asked, answer.text, rewards=self.config.rewards, tokens=len(answer.tokens),
                    room=self.config.max_new_tokens, thinking=self.config.thinking,
                )
                for answer in answers
            ]  # fmt: skip
            lengths = torch.tensor([len(answer.tokens) for answer in answers])
            rewards = torch.tensor([one.reward for one in marks], dtype=torch.float64)
            rewards = rewards + overlong_punishment(lengths, self.config)
            advantages = advantages_of(rewards[None], self.config)[0]
            groups.append(
                [
                    Scored(prompt=prompt, answer=answer, mark=one, reward=reward, advantage=advantage)
                    for answer, one, reward, advantage in zip(
                        answers, marks, rewards.tolist(), advantages.tolist(), strict=True
                    )
                ]
            )
        return groups

    def _prompts(self, pack: PackedBatch) -> list[Prompt]:
        if not pack.rows:
            return []  # nothing of it could be read
        prompts = []
        for sample, rendered in zip(pack.rows, samples_in(pack, self.processor), strict=False):
            asked = asked_of(sample)
            assert asked is not None, "the stage takes no other samples"
            prompts.append(Prompt(sample=sample, asked=asked, rendered=rendered))
        return prompts

    def _scored(self, engine: Engine, batch: RolloutBatch) -> RolloutBatch:
        """With what does not change while the answers are learnt from: the old policy, and the reference."""
        old = reference = None
        with torch.no_grad():
            here = batch.to(engine.device)
            if self.updates > 1:
                old, _ = token_log_probabilities(engine.model, here, temperature=self.config.temperature)
            if self.config.beta:
                with adapters_off(engine.module):
                    reference, _ = token_log_probabilities(engine.model, here, temperature=self.config.temperature)
        return replace(batch, old=old, reference=reference)

    def count(self, batch: PackedBatch) -> float:
        return batch.items if isinstance(batch, RolloutBatch) else 0.0

    def __call__(self, model: nn.Module, batch: PackedBatch) -> Loss:
        assert isinstance(batch, RolloutBatch)
        new, entropies, where = token_log_probabilities_and_entropies(model, batch, temperature=self.config.temperature)
        answer = torch.searchsorted(batch.cu_seqlens[1:].to(where.dtype), where, right=True)  # (N,)
        lengths = sums_per_sample(torch.ones_like(new), supervised_positions(batch), batch.cu_seqlens)
        old = new.detach() if batch.old is None else batch.old
        found = token_losses(new, old, batch.advantages[answer], batch.reference, self.config)
        total = (found.losses * token_weights(lengths, self.config)[answer]).sum()
        # The loop divides by the items of the loss; these are means over tokens.
        share = self._items / max(self._trained, 1)
        metrics = {"entropy": float(entropies.sum()) * share, "clipped": float(found.clipped.sum()) * share}
        if batch.reference is not None:
            metrics["divergence"] = float(found.divergence.sum()) * share
        return Loss(total=total, metrics=metrics)

    def _tell(
        self,
        engine: Engine,
        groups: Sequence[Sequence[Scored]],
        rewards: Tensor,
        silent: Tensor,
        kept: Sequence[Scored],
        *,
        items: float,
    ) -> None:
        """Means over the answers of all ranks, also of those that are not trained on."""
        every = [one for group in groups for one in group]
        parts = {name: [v for one in every if (v := one.mark.parts[name]) is not None] for name in self.config.rewards}
        sums = {
            "answers": len(every), "prompts": len(groups), "items": items,
            "trained": sum(len(one.answer.tokens) for one in kept),
            "reward": float(rewards.sum()), "reward_std": float(rewards.std(dim=1).sum()),
            "groups_without_signal": int(silent.sum()), "unread": sum(one.mark.unread for one in every),
            "answer_tokens": sum(len(one.answer.tokens) for one in every),
            "cut_off": sum(one.answer.cut_off for one in every),
            **{f"sum_{name}": sum(values) for name, values in parts.items()},
            **{f"count_{name}": len(values) for name, values in parts.items()},
        }  # fmt: skip
        over_ranks = engine.sum_over_ranks(torch.tensor(list(sums.values()), dtype=torch.float64)).tolist()
        all_sums = dict(zip(sums, over_ranks, strict=True))
        self._items, self._trained = all_sums["items"], all_sums["trained"]
        answers, prompts = max(all_sums["answers"], 1), max(all_sums["prompts"], 1)
        told = {name: all_sums[name] / answers for name in ("reward", "unread", "answer_tokens", "cut_off")}
        told |= {name: all_sums[name] / prompts for name in ("reward_std", "groups_without_signal")}
        for name in self.config.rewards:
            told[f"reward_{name}"] = all_sums[f"sum_{name}"] / max(all_sums[f"count_{name}"], 1)
        self.told = told


def make_reinforcement(
    config: ReinforcementConfig, engine: Engine, processor: Processor, place: RolloutPlace
) -> Reinforcement:
    """The objective of a stage with the sampler that its settings name."""
    log = RolloutLog(place.folder, kept=config.rollouts_kept, rank=engine.rank, start=place.start)
    sampler: Sampler = OwnSampler(config, processor, place.seed)
    if config.server is not None:
        sampler = ServerSampler(config, processor, place.seed, place.root)
    return Reinforcement(config, processor, sampler, log, place)


def _most(engine: Engine, packs: int) -> int:
    """The packs of the rank that has most, at least 1."""
    counts = torch.zeros(engine.world_size, dtype=torch.float64)
    counts[engine.rank] = packs
    return max(1, int(engine.sum_over_ranks(counts).max()))
