"""Next-token cross-entropy on what the assistant says and on the end of its turn."""

from __future__ import annotations

from torch import nn

from medvlm.model.batch import PackedBatch
from medvlm.model.log_probabilities import summed_log_probability
from medvlm.train.objectives.objective import Loss, Objective


class Supervised(Objective):
    """Captions, reports, questions and text alike: one item is one supervised token."""

    def count(self, batch: PackedBatch) -> int:
        return batch.supervised

    def __call__(self, model: nn.Module, batch: PackedBatch) -> Loss:
        return Loss(total=-summed_log_probability(model, batch))
