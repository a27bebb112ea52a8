"""Several processes share one pack: each holds a part of its tokens, and all tokens of a part of the heads.

DeepSpeed Ulysses (Jacobs et al. 2023, arXiv:2309.14509; for training of long sequences: Bekman et al. 2025,
arXiv:2506.13996). Everything in the decoder but attention works token by token, so that n processes that take a slice
of the tokens each hold 1 / n of its activations. Around attention an all-to-all trades slices of tokens for groups of
heads: attention then sees the whole pack, with the borders of its samples, and nothing else changes.

The decoder only: every process of a group runs the encoder and the projector on all visuals of the pack, and of their
gradient each makes the part that its tokens send back. The sum over ranks, which engines make anyway, is the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from medvlm.model.batch import IGNORED, PackedBatch
from medvlm.model.language_head import decoder_of
from medvlm.model.packed_attention import NAME as PACKED
from medvlm.train.objectives.objective import Loss, Objective


class _Exchange(torch.autograd.Function):
    """Part i of (n, ...) goes to process i, which puts it where it keeps what comes from here; its own inverse."""

    @staticmethod
    def forward(context: Any, parts: Tensor, group: Any) -> Tensor:  # type: ignore[override]
        context.group = group
        out = torch.empty_like(parts)
        dist.all_to_all_single(out, parts, group=group)
        return out

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return _Exchange.apply(gradient.contiguous(), context.group), None  # type: ignore[no-untyped-call]


@dataclass(frozen=True, kw_only=True)
class SequenceGroup:
    """The processes that share a pack, and this one among them."""

    group: Any
    rank: int
    size: int

    def bounds(self, length: int) -> tuple[int, int]:
        """The tokens of ``length`` that this process holds; the last slices may be short or empty."""
        part = -(-length // self.size)
        return min(self.rank * part, length), min((self.rank + 1) * part, length)

    def to_heads(self, tensor: Tensor, heads: int) -> Tensor:
        """(1, heads, T / n, d) of this process's tokens -> (1, heads / n, T, d) of its heads.

        Args:
            heads: of the queries. Keys and values of fewer heads are repeated when n does not divide their number.

        Raises:
            ValueError: n does not divide ``heads``.
        """
        if heads % self.size:
            raise ValueError(
                f"engine.sequence_parallel is {self.size}, which does not divide the {heads} attention heads of the "
                "decoder; use a divisor"
            )
        if tensor.shape[1] % self.size:
            tensor = tensor.repeat_interleave(heads // tensor.shape[1], dim=1)
        _, count, tokens, width = tensor.shape
        parts = tensor.reshape(self.size, count // self.size, tokens, width)
        mixed = _Exchange.apply(parts.contiguous(), self.group)  # type: ignore[no-untyped-call]
        return mixed.transpose(0, 1).reshape(1, count // self.size, self.size * tokens, width)

    def to_tokens(self, tensor: Tensor) -> Tensor:
        """(1, T, heads / n, d) -> (1, T / n, heads, d); undoes ``to_heads``."""
        _, tokens, count, width = tensor.shape
        parts = tensor.reshape(self.size, tokens // self.size, count, width)
        mixed = _Exchange.apply(parts.contiguous(), self.group)  # type: ignore[no-untyped-call]
        return mixed.transpose(0, 1).reshape(1, tokens // self.size, self.size * count, width)


def sequence_group(size: int, rank: int, world_size: int) -> SequenceGroup | None:
    """The group of this rank: ``size`` neighbours, which torchrun puts on one machine; None when size is 1.

    All ranks must call it.

    Raises:
        ValueError: ``size`` does not divide the number of processes.
    """
    if size == 1:
        return None
    if world_size % size:
        raise ValueError(
            f"engine.sequence_parallel is {size}, but {world_size} processes cannot be cut into groups of {size}; "
            "start a multiple of it"
        )
    made = [dist.new_group(list(range(first, first + size))) for first in range(0, world_size, size)]
    return SequenceGroup(group=made[rank // size], rank=rank % size, size=size)


def share_packs(model: Any, group: SequenceGroup) -> None:
    """Let the decoder of ``model`` (ours) run on this process's tokens of each pack, from now on.

    Raises:
        ValueError: a decoder whose attention cannot be shared.
    """
    text = getattr(model, "text", None)
    decoder = decoder_of(text) if isinstance(text, nn.Module) else None
    found = str(text.config._attn_implementation) if text is not None else "another"
    if decoder is None or found != PACKED:
        raise ValueError(
            f"engine.sequence_parallel needs a decoder of ours with the attention {PACKED!r}, and this one is "
            f"{type(model).__name__} with {found!r}; set engine.attention: sdpa, or sequence_parallel: 1"
        )
    decoder.register_forward_pre_hook(_Slice(group), with_kwargs=True)
    decoder.register_forward_hook(_Place(group), with_kwargs=True)


@dataclass(frozen=True)
class _Slice:
    """Before the decoder: this process's tokens, and who shares the others. A batch that is no pack stays as it is."""

    group: SequenceGroup

    def __call__(self, module: nn.Module, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        if given.get("segment_lengths") is None:
            return None
        embeds, positions = given["inputs_embeds"], given["position_ids"]  # (1, T, hidden), (1, T)
        length = embeds.shape[1]
        padding = -length % self.group.size
        part = (length + padding) // self.group.size
        start = self.group.rank * part
        lengths = [*given["segment_lengths"], padding] if padding else given["segment_lengths"]
        sliced = {
            "inputs_embeds": F.pad(embeds, (0, 0, 0, padding))[:, start : start + part],
            "position_ids": F.pad(positions, (0, padding))[..., start : start + part],
            "segment_lengths": lengths,
            "sequence_group": self.group,
            "whole_length": length,
        }
        return args, {**given, **sliced}


@dataclass(frozen=True)
class _Place:
    """After it: this process's hidden states in their places among zeros, which nothing reads: see PartOfPack."""

    group: SequenceGroup

    def __call__(self, module: nn.Module, args: Any, given: dict[str, Any], output: Any) -> Any:
        length = given.get("whole_length")
        if length is None:
            return None
        hidden = output.last_hidden_state
        start, stop = self.group.bounds(length)
        output["last_hidden_state"] = F.pad(hidden[:, : stop - start], (0, 0, start, length - stop))
        return output


class PartOfPack(Objective):
    """An objective over the supervised tokens that this process holds; summed over the group it is the whole."""

    def __init__(self, objective: Objective, group: SequenceGroup) -> None:
        self.objective, self.group = objective, group
        self.shared_by = group.size

    def own(self, batch: PackedBatch) -> PackedBatch:
        """``batch`` without the targets of the other processes."""
        start, stop = self.group.bounds(len(batch.tokens))
        targets = torch.full_like(batch.targets, IGNORED)
        targets[start:stop] = batch.targets[start:stop]
        return replace(batch, targets=targets)

    def count(self, batch: PackedBatch) -> float:
        return self.objective.count(self.own(batch))

    def auxiliary_counts(self, batch: PackedBatch) -> Mapping[str, float]:
        return {}

    def __call__(self, model: nn.Module, batch: PackedBatch) -> Loss:
        return self.objective(model, self.own(batch))
