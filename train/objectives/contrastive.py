"""Contrastive learning of visuals and texts; the negatives of a pair are all other pairs of the step."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from medvlm.data_recipes.sample import Sample
from medvlm.model.batch import PackedBatch
from medvlm.model.head_contrastive import LARGEST_LOG_SCALE, Embedded, Texts, embed_pairs, pack_texts
from medvlm.train.engine import Engine
from medvlm.train.objectives.contrastive_losses import (
    clip_losses,
    held,
    identity,
    no_negatives,
    rows_of_all_ranks,
    siglip_losses,
)
from medvlm.train.objectives.objective import Loss, Objective
from medvlm.train.randomness import device_state, restore_device_state
from medvlm.train.settings.contrastive import ContrastiveConfig


@dataclass(frozen=True, kw_only=True)
class ContrastivePack(PackedBatch):
    """A pack whose pairs have been compared with those of all packs and ranks.

    Attributes:
        items: (B,) its samples with a visual and a text.
        text_tokens, text_positions, text_cu_seqlens: their texts alone.
        losses: (B,) of these pairs, in the pool of the step.
        hits: (B, 2) whether the right text, and the right visual, is the nearest one.
        pulls: (B, 2, size) gradient of the summed loss with respect to the visuals and the texts.
        pull_of_logits: (2,) this pack's part of its gradient with respect to logarithm of scale and bias.
        random_state: of torch, before the pack was embedded; None once it has been put back.
    """

    items: Tensor
    text_tokens: Tensor
    text_positions: Tensor
    text_cu_seqlens: Tensor
    losses: Tensor
    hits: Tensor
    pulls: Tensor
    pull_of_logits: Tensor
    random_state: Any

    @property
    def texts(self) -> Texts:
        return Texts(tokens=self.text_tokens, positions=self.text_positions, cu_seqlens=self.text_cu_seqlens)


def paired(sample: Sample) -> bool:
    """Whether ``sample`` is a pair: it shows something, and the assistant says something."""
    return bool(sample.visuals()) and bool(sample.said())


class Contrastive(Objective):
    """One item is one sample with a visual and a text; the text is read without the visual.

    The gradient cache (Gao et al. 2021, arXiv:2101.06983): ``prepare`` embeds all packs of the step without a gradient,
    gathers them from all ranks, and takes the gradient of the loss with respect to each embedding; then each pack is
    embedded again, and the inner product of its embeddings with that gradient has the gradient of the whole loss. So it
    does not depend on how pairs are split into packs and ranks, and memory is that of one pack, for any number of
    negatives. Dropout is the same in both passes. Each rank holds N x N logits of the N pairs of a step.

    Args:
        tokenizer: of the texts, which are read apart from the conversations.
    """

    prepares = True

    def __init__(self, config: ContrastiveConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        self.config = config
        # A tokenizer keeps how it takes special tokens from call to call, and the loader's thread uses that of the
        # processor at the same time: seen to take the end of a turn for plain characters.
        self.tokenizer = copy.deepcopy(tokenizer)

    def count(self, batch: PackedBatch) -> int:
        return sum(paired(row) for row in batch.rows)

    def prepare(self, engine: Engine, packs: Sequence[PackedBatch]) -> list[PackedBatch]:
        begun = device_state()
        made: list[ContrastivePack] = []
        found: list[Embedded] = []
        for pack in packs:
            made.append(self._with_texts(pack))
            with torch.no_grad():
                found.append(embed(engine.model, made[-1].to(engine.device)))
        restore_device_state(begun)
        mine = self._identities(packs).to(engine.device)
        visual, text = (torch.cat([getattr(part, name) for part in found]) for name in ("visual", "text"))
        pools = rows_of_all_ranks((visual, text, mine))
        pool = _compared(self.config, [torch.cat(parts) for parts in zip(*pools, strict=True)], found[0])
        first = sum(len(part[0]) for part in pools[: engine.rank])
        total = sum(len(part[0]) for part in pools)
        prepared: list[PackedBatch] = []
        for part in made:
            here = slice(first, first + len(part.items))
            first += len(part.items)
            prepared.append(
                replace(
                    part,
                    losses=pool.losses[here].cpu(),
                    hits=pool.hits[here].cpu(),
                    pulls=pool.pulls[here].cpu(),
                    pull_of_logits=pool.pull_of_logits.cpu() * len(part.items) / max(total, 1),
                )
            )
        return prepared

    def begin(self, batch: PackedBatch) -> ContrastivePack:
        assert isinstance(batch, ContrastivePack), "prepare() comes first"
        if batch.random_state is not None:
            restore_device_state(batch.random_state)
        return replace(batch, random_state=None)

    def __call__(self, model: nn.Module, batch: PackedBatch) -> Loss:
        batch = self.begin(batch)
        made = embed(model, batch)
        pull = (made.visual * batch.pulls[:, 0]).sum() + (made.text * batch.pulls[:, 1]).sum()
        pull = pull + (made.log_scale * batch.pull_of_logits[0]).sum()
        if made.bias is not None:
            pull = pull + (made.bias * batch.pull_of_logits[1]).sum()
        scale = float(made.log_scale.detach().clamp(0, LARGEST_LOG_SCALE).exp())
        finds_text, finds_visual = batch.hits.sum(dim=0).tolist()
        return Loss(
            # Its gradient is that of the inner product, its value that of the loss.
            total=pull + (batch.losses.sum() - pull).detach(),
            metrics={"finds_text": finds_text, "finds_visual": finds_visual, "scale": scale * len(batch.items)},
        )

    def _with_texts(self, pack: PackedBatch) -> ContrastivePack:
        items = [index for index, row in enumerate(pack.rows) if paired(row)]
        texts = pack_texts(self.tokenizer, [pack.rows[index].said() for index in items])
        empty = torch.zeros(0)
        return ContrastivePack(
            **{item.name: getattr(pack, item.name) for item in fields(PackedBatch)},
            items=torch.tensor(items, dtype=torch.int64),
            text_tokens=texts.tokens,
            text_positions=texts.positions,
            text_cu_seqlens=texts.cu_seqlens,
            losses=empty,
            hits=empty,
            pulls=empty,
            pull_of_logits=empty,
            random_state=device_state(),
        )

    def _identities(self, packs: Sequence[PackedBatch]) -> Tensor:
        """(n, 3) of the pairs of this rank."""
        rows = [identity(row, row.said()) for pack in packs for row in pack.rows if paired(row)]
        return torch.tensor(rows, dtype=torch.int64).view(-1, 3)


def embed(model: nn.Module, pack: PackedBatch) -> Embedded:
    """The pairs of ``pack`` in the shared space."""
    assert isinstance(pack, ContrastivePack)
    return model(run=partial(embed_pairs, batch=pack, items=pack.items.tolist(), texts=pack.texts))


@dataclass(frozen=True, kw_only=True)
class _Pool:
    """The fields of ContrastivePack for all N pairs of a step; ``pull_of_logits`` is whole."""

    losses: Tensor
    hits: Tensor
    pulls: Tensor
    pull_of_logits: Tensor


def _compared(config: ContrastiveConfig, pool: list[Tensor], logits: Embedded) -> _Pool:
    """Losses of all pairs of a step, and the gradient of their sum.

    Args:
        pool: visuals (N, size), texts (N, size) and identities (N, 3) of all ranks.
        logits: where scale and bias stand; they are the same for all packs and ranks.
    """
    visual, text, identities = pool
    same = no_negatives(identities) if config.mask_duplicates else None
    log_scale = logits.log_scale.detach().clamp(0, LARGEST_LOG_SCALE)
    bias = torch.zeros_like(log_scale) if logits.bias is None else logits.bias.detach()
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (visual, text, log_scale, bias)]
    with torch.enable_grad():
        if config.loss == "siglip":
            losses = siglip_losses(leaves[0], leaves[1], leaves[2].exp(), leaves[3], same)
        else:
            losses = clip_losses(leaves[0], leaves[1], leaves[2].exp(), same)
        pulls = torch.autograd.grad(losses.sum(), leaves, allow_unused=True)
    of_visual, of_text, of_scale, of_bias = (
        torch.zeros_like(leaf) if pull is None else pull for leaf, pull in zip(leaves, pulls, strict=True)
    )
    cosines = visual @ text.T
    if same is not None:
        cosines = cosines.masked_fill(same, float("-inf"))
    right = torch.arange(len(cosines), device=cosines.device)
    hits = [cosines.argmax(dim=dim) == right if len(right) else right.bool() for dim in (1, 0)]
    return _Pool(
        losses=losses.detach(),
        hits=torch.stack(hits, dim=1).float(),
        pulls=torch.stack([of_visual, of_text], dim=1),
        pull_of_logits=torch.cat([held(logits.log_scale.detach(), of_scale, LARGEST_LOG_SCALE), of_bias]),
    )
