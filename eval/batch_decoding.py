"""What a batch of ``generate`` wrote, row by row: cut at its end or its room, with the probability of each token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor


def end_ids(model: Any, processor: Any) -> set[int]:
    """Ids at which an answer ends: what the processor's template writes, and what the checkpoint says besides."""
    stated = model.generation_config.eos_token_id
    listed = stated if isinstance(stated, list | tuple) else [] if stated is None else [stated]
    return {*map(int, listed), *processor.end_ids}


def cut(written: Sequence[int], ends: set[int], room: int) -> tuple[list[int], bool]:
    """(tokens of the answer, whether it ended by itself) of what a row of a batch holds after its prompt.

    Rows of a batch may have unlike room: the batch goes on for the longest, and what a row wrote beyond its own is
    not its answer.

    Args:
        ends: see ``end_ids``.
        room: max_new_tokens of the row.
    """
    own = list(written[:room])
    stop = next((place for place, token in enumerate(own) if token in ends), None)
    return (own, False) if stop is None else (own[:stop], True)


class ChosenProbabilities(LogitsProcessor):
    """Notes the log-probability of the token that greedy decoding chooses at each step, and changes nothing.

    Far cheaper than ``output_scores``, which keeps all logits of all steps. Works also for models that decode a batch
    row by row, in several calls.
    """

    def __init__(self) -> None:
        self.calls: list[list[Tensor]] = []
        self._length = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if not self.calls or input_ids.shape[1] <= self._length:
            self.calls.append([])
        self._length = input_ids.shape[1]
        # The largest of the log-softmax, without making it: (rows,)
        self.calls[-1].append(scores.amax(dim=-1).float() - torch.logsumexp(scores.float(), dim=-1))
        return scores

    def rows(self) -> list[list[float]]:
        """Per row of the batch, the log-probability of each token that it wrote, in order."""
        return [row for call in self.calls for row in torch.stack(call).T.tolist()]


def probability(steps: Sequence[float], tokens: int) -> float:
    """That a model writes exactly these ``tokens``, the end included: the product of their probabilities."""
    return math.exp(sum(steps[:tokens]))
