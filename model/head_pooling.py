"""What the encoder makes of the visuals of a pack, as one vector a visual and one a sample: what heads read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medvlm.model.batch import PackedBatch, shown_by_row
from medvlm.model.config import ProjectorConfig
from medvlm.model.projector_resampling import CrossAttention, Reach

Pooling = Literal["mean", "attention"]


@dataclass(frozen=True, kw_only=True)
class EncodedVisuals:
    """The visuals of a pack behind the encoder.

    Attributes:
        features: (P, vision_hidden), visuals end to end.
        patches: how many of them each of the V visuals has.
        shown: of each sample of the pack, its visuals in the order in which they stand.
    """

    features: Tensor
    patches: list[int]
    shown: list[list[int]]


def encode_visuals(model: Any, batch: PackedBatch) -> EncodedVisuals:
    """Run the encoder over a pack, or take ``batch.features`` where it has run before.

    A pack without visuals runs the blank visual, which no sample shows: every rank must run every trained part.
    """
    counts = [
        int((batch.tokens[start:stop] == model.config.visual_token_id).sum())
        for start, stop in zip(batch.cu_seqlens.tolist(), batch.cu_seqlens.tolist()[1:], strict=False)
    ]
    features = batch.features
    if features is None or len(features) == 0:
        features = model.encode_pack(batch)
    if len(batch.grids) == 0:
        return EncodedVisuals(features=features, patches=[len(features)], shown=[[] for _ in counts])
    return EncodedVisuals(
        features=features,
        patches=batch.grids.prod(dim=1).tolist(),
        shown=shown_by_row(counts, batch.visual_tokens, batch.placements),
    )


def mean_of_visuals(features: Tensor, patches: list[int]) -> Tensor:
    """The mean of features (P, hidden) over the patches of each of V visuals: (V, hidden), in float32."""
    counts = torch.tensor(patches, device=features.device)
    owner = torch.repeat_interleave(torch.arange(len(patches), device=features.device), counts)
    sums = torch.zeros(len(patches), features.shape[1], device=features.device)
    return sums.index_add(0, owner, features.float()) / counts[:, None]


def mean_of_samples(pooled: Tensor, shown: Sequence[Sequence[int]]) -> Tensor:
    """The mean of pooled visuals (V, hidden) over those that each of B samples shows: (B, hidden)."""
    counts = torch.tensor([len(visuals) for visuals in shown], dtype=torch.int64, device=pooled.device)
    which = torch.tensor([v for visuals in shown for v in visuals], dtype=torch.int64, device=pooled.device)
    owner = torch.repeat_interleave(torch.arange(len(shown), device=pooled.device), counts)
    sums = pooled.new_zeros(len(shown), pooled.shape[1])
    return sums.index_add(0, owner, pooled[which]) / counts[:, None]


class VisualPool(nn.Module):
    """Features (P, hidden) of V visuals -> (V, hidden): their mean, or attention by one learned query.

    Args:
        width: of the encoder.
        pooling: "mean", or "attention": the attentional pooler of CoCa (Yu et al. 2022, arXiv:2205.01917) with one
            query; it can look at a small finding that a mean over the whole scan would drown.
        num_attention_heads: only for attention.
    """

    def __init__(self, width: int, pooling: Pooling, num_attention_heads: int = 4) -> None:
        super().__init__()
        if pooling == "attention":
            config = ProjectorConfig(
                kind="attention_pooling", hidden_size=width, queries=1, num_attention_heads=num_attention_heads
            )
            self.query = nn.Embedding(1, width)
            nn.init.normal_(self.query.weight, std=0.02)
            self.norm_query, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
            self.attention = CrossAttention(width, config)
        self.pooling = pooling

    def forward(self, features: Tensor, patches: list[int]) -> Tensor:
        """(P, hidden) and the patches of each visual -> (V, hidden)."""
        if self.pooling == "mean":
            return mean_of_visuals(features, patches)
        which = torch.zeros(len(patches), dtype=torch.int64, device=features.device)
        features = features.to(self.norm.weight.dtype)
        who = Reach(queries=[1] * len(patches), keys=patches)
        return self.attention(self.norm_query(self.query(which)), self.norm(features), who)
