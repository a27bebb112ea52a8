"""Losses beside the main one, over the same pack and the same pass through the encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from medvlm.model.batch import PackedBatch
from medvlm.model.head_pooling import EncodedVisuals, encode_visuals
from medvlm.train.engine import Engine
from medvlm.train.objectives.auxiliary_findings import Findings, Progression
from medvlm.train.objectives.auxiliary_triplets import Triplets
from medvlm.train.objectives.auxiliary_unpaired import Unpaired
from medvlm.train.objectives.objective import Loss, Objective
from medvlm.train.settings.auxiliary import AuxiliaryLoss


class Auxiliary(Protocol):
    """A loss on a head beside the language model; as of objectives, it is a sum over items that are known before.

    Attributes:
        names: of what it adds up; most add up one thing.
    """

    names: tuple[str, ...]

    def counts(self, batch: PackedBatch) -> Mapping[str, float]:
        """Items of each of ``names``, known before the forward pass."""
        ...

    def __call__(self, model: Any, batch: PackedBatch, visuals: EncodedVisuals) -> Mapping[str, Tensor]:
        """The sum of each of ``names``; it runs its head also where there is no item, or ranks would part ways."""
        ...


def make_auxiliary(loss: AuxiliaryLoss, tokenizer: PreTrainedTokenizerBase) -> Auxiliary:
    """The auxiliary loss that ``loss`` names.

    Args:
        tokenizer: of a loss that reads texts apart from their conversations.
    """
    match loss.kind:
        case "findings":
            return Findings(loss.findings, loss.positive_weights)
        case "progression":
            return Progression(loss.findings)
        case "triplets":
            return Triplets(loss.findings, loss.positions)
        case "unpaired":
            return Unpaired(loss.findings, tokenizer, paired_texts=loss.paired_texts)


@dataclass(frozen=True, kw_only=True)
class _Both:
    loss: Loss
    auxiliary: dict[str, Tensor]


class WithAuxiliaries(Objective):
    """An objective and further losses, which share one pass through the encoder.

    All of it runs inside one call of the engine's model: an engine must see one forward pass, in which every trained
    part takes part once.
    """

    def __init__(self, objective: Objective, losses: Sequence[tuple[Auxiliary, float]]) -> None:
        self.objective, self.losses = objective, [loss for loss, _ in losses]
        self.prepares = objective.prepares
        self.auxiliary_weights = {name: weight for loss, weight in losses for name in loss.names}

    def prepare(self, engine: Engine, packs: Sequence[PackedBatch]) -> list[PackedBatch]:
        return self.objective.prepare(engine, packs)

    def count(self, batch: PackedBatch) -> float:
        return self.objective.count(batch)

    def auxiliary_counts(self, batch: PackedBatch) -> Mapping[str, float]:
        return {name: count for loss in self.losses for name, count in loss.counts(batch).items()}

    def begin(self, batch: PackedBatch) -> PackedBatch:
        return self.objective.begin(batch)

    def __call__(self, model: nn.Module, batch: PackedBatch) -> Loss:
        batch = self.begin(batch)
        both: _Both = model(run=lambda inner: self._run(inner, batch))
        return replace(both.loss, auxiliary=both.auxiliary)

    def _run(self, model: Any, batch: PackedBatch) -> _Both:
        visuals = encode_visuals(model, batch)
        # Not model(...) again: the hooks of ZeRO-3 and of DDP hang on the call, and have run for this pass.
        loss = self.objective(model.forward, replace(batch, features=visuals.features))
        auxiliary: dict[str, Tensor] = {}
        for each in self.losses:
            auxiliary |= each(model, batch, visuals)
        return _Both(loss=loss, auxiliary=auxiliary)
