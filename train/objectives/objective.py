"""What an objective is: a pack in, a sum and a count out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from medvlm.model.batch import PackedBatch
from medvlm.train.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Loss of one pack.

    Attributes:
        total: scalar; the sum over ``count`` items, so that any split into packs gives the same gradient.
        metrics: sums over the items of this pack, logged as means.
        auxiliary: name of a further loss -> its sum over the items of ``auxiliary_counts``.
    """

    total: Tensor
    metrics: dict[str, float] = field(default_factory=dict)
    auxiliary: Mapping[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """Supervised, preference, ...: all over the same packed forward. Subclass it for the defaults.

    Attributes:
        prepares: ``prepare`` does something; counts are then taken after it.
        auxiliary_weights: further losses beside the main one; most have none.
        updates: optimizer steps on what ``prepare`` made of the packs of one step.
        told: what ``prepare`` found in a step, as means over all ranks; logged beside the metrics of the losses.
        shared_by: processes that take each pack together.
    """

    prepares: bool = False
    auxiliary_weights: Mapping[str, float] = {}
    updates: int = 1
    told: Mapping[str, float] = {}
    shared_by: int = 1

    def prepare(self, engine: Engine, packs: Sequence[PackedBatch]) -> list[PackedBatch]:
        """What the packs of this rank become before the step trains on them (answers that the model writes, embeddings
        of all ranks): called once a step, on all ranks, each with packs that are known to be good."""
        return list(packs)

    def count(self, batch: PackedBatch) -> float:
        """Items that the loss of ``batch`` sums over: known before the forward pass."""
        ...

    def auxiliary_counts(self, batch: PackedBatch) -> Mapping[str, float]:
        """Items of each loss in ``auxiliary_weights``."""
        return {}

    def begin(self, batch: PackedBatch) -> PackedBatch:
        """What must happen before anything of ``model`` runs on ``batch``; the objective calls it itself, but whoever
        runs the encoder before it calls it first and goes on with what it returns."""
        return batch

    def __call__(self, model: nn.Module, batch: PackedBatch) -> Loss:
        """Run ``model`` (the engine's wrapped module) on ``batch``."""
        ...
