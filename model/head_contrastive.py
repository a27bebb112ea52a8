"""The head that puts visuals and texts into one space, and the texts that it reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from medvlm.model.batch import PackedBatch
from medvlm.model.config import MedVLMConfig
from medvlm.model.head_pooling import Pooling, VisualPool, encode_visuals, mean_of_samples

Reads = Literal["last", "mean"]

LARGEST_LOG_SCALE = math.log(100)
"""Logits are at most a hundred cosines apart (CLIP, section 2.5)."""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Texts end to end, without any visual; each ends with the tokenizer's end-of-text token.

    Attributes:
        tokens: (T,) int64.
        positions: (T,) int64; restart at each text.
        cu_seqlens: (B+1,) int32.
    """

    tokens: Tensor
    positions: Tensor
    cu_seqlens: Tensor

    def to(self, device: torch.device | str) -> Texts:
        """A copy on ``device``."""
        return Texts(
            tokens=self.tokens.to(device), positions=self.positions.to(device), cu_seqlens=self.cu_seqlens.to(device)
        )


def pack_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Texts:
    """Tokenize ``texts``; special tokens in them are plain characters, as in conversations.

    Of no text at all the result is one end-of-text token, so that the decoder has something to run on.
    """
    end = tokenizer.eos_token_id
    rows = [
        [*tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"], end] for text in texts
    ] or [[end]]
    ends = [0]
    for row in rows:
        ends.append(ends[-1] + len(row))
    return Texts(
        tokens=torch.tensor([token for row in rows for token in row], dtype=torch.int64),
        positions=torch.cat([torch.arange(len(row)) for row in rows]),
        cu_seqlens=torch.tensor(ends, dtype=torch.int32),
    )


def text_states(model: Any, texts: Texts, how: Reads) -> Tensor:
    """What the decoder makes of each text alone: its hidden state at the last token, or the mean over its tokens.

    Returns:
        (B, text_hidden) float32.
    """
    positions = texts.positions[None]
    hidden = model.text.base_model(
        inputs_embeds=model.get_input_embeddings()(texts.tokens[None]),
        position_ids=positions,
        use_cache=False,
        **model._pack_borders(texts.cu_seqlens, positions),
    ).last_hidden_state[0]  # (T, text_hidden)
    ends = texts.cu_seqlens.long()
    if how == "last":
        return hidden[ends[1:] - 1].float()
    lengths = ends.diff()
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=hidden.device), lengths)
    sums = torch.zeros(len(lengths), hidden.shape[1], device=hidden.device)
    return sums.index_add(0, owner, hidden.float()) / lengths[:, None]


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """B pairs in the shared space.

    Attributes:
        visual, text: (B, size) float32, of length 1.
        log_scale: (1,) logarithm of what a cosine is multiplied with, as it is learned: not clamped.
        bias: (1,) what is added to a logit (SigLIP), or None.
    """

    visual: Tensor
    text: Tensor
    log_scale: Tensor
    bias: Tensor | None


class ContrastiveHead(nn.Module):
    """Two linear maps without bias onto a unit sphere, and the scale of the logits (CLIP, SigLIP).

    Args:
        size: of the shared space.
        pooling: how the patches of a visual become one vector; the visuals of a sample are averaged.
        reads: what stands for a text: the decoder's hidden state at its last token, or the mean over its tokens.
        bias: learn a bias of the logits (SigLIP).
    """

    def __init__(
        self, config: MedVLMConfig, *, size: int, pooling: Pooling = "mean", reads: Reads = "last", bias: bool = False
    ) -> None:
        super().__init__()
        self.reads: Reads = reads
        vision, text = config.vision_config.hidden_size, config.text_config.hidden_size
        self.pool = VisualPool(vision, pooling)
        self.visual = nn.Linear(vision, size, bias=False)
        self.text = nn.Linear(text, size, bias=False)
        for layer in (self.visual, self.text):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        self.log_scale = nn.Parameter(torch.zeros(1))
        if bias:
            self.logit_bias = nn.Parameter(torch.zeros(1))
        self.has_bias = bias

    def forward(
        self, features: Tensor, text: Tensor, patches: list[int], shown: list[list[int]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Embed B pairs. Tensors in and a tuple of tensors out: what ZeRO-3 hangs its hooks on.

        Args:
            features: (P, vision_hidden) of V visuals, end to end.
            text: (B, text_hidden).
            patches: of each visual.
            shown: the visuals of each pair.

        Returns:
            Visuals (B, size), texts (B, size), and (1,) the log scale or (2,) log scale and bias; float32.
        """
        pooled = mean_of_samples(self.pool(features, patches), shown)
        visual, text = self.visual(pooled.to(self.visual.weight.dtype)), self.text(text.to(self.text.weight.dtype))
        logits = torch.cat([self.log_scale, self.logit_bias]) if self.has_bias else self.log_scale * 1
        return F.normalize(visual.float(), dim=-1), F.normalize(text.float(), dim=-1), logits.float()


def embed_pairs(model: Any, batch: PackedBatch, items: list[int], texts: Texts) -> Embedded:
    """The samples ``items`` of a pack with their texts; call it through ``model(run=...)`` where an engine wraps it.

    Raises:
        ValueError: the model has no contrastive head.
    """
    heads = getattr(model, "heads", {})
    if "contrastive" not in heads:
        raise ValueError(
            "the model has no contrastive head: train a stage with objective: contrastive first, or load its checkpoint"
        )
    head = heads["contrastive"]
    visuals = encode_visuals(model, batch)
    states = text_states(model, texts, head.reads)[: len(items)]
    visual, text, logits = head(visuals.features, states, visuals.patches, [visuals.shown[item] for item in items])
    return Embedded(visual=visual, text=text, log_scale=logits[:1], bias=logits[1:] if head.has_bias else None)
