"""Projectors with learned queries: as many visual tokens of each visual as there are queries, whatever its size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from medvlm.model.batch import IMAGE, VIDEO, VOLUME
from medvlm.model.config import ProjectorConfig
from medvlm.model.visual import Kind

_KIND: dict[int, Kind] = {IMAGE: "image", VOLUME: "volume", VIDEO: "video"}


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Who may see whom in a pack: the queries of visual v see the keys of visual v.

    Attributes:
        queries: how many of each visual, laid end to end.
        keys: how many of each visual, laid end to end.
    """

    queries: list[int]
    keys: list[int]


def reach(config: ProjectorConfig, grids: Tensor, axis_kinds: Tensor) -> Reach:
    """The tokens that the projector makes and the patches, of each visual of a pack: grids (V, 3), axis_kinds (V,)."""
    kinds = [_KIND[code] for code in axis_kinds.tolist()]
    rows = grids.tolist()
    return Reach(
        queries=[config.tokens(tuple(row), kind) for row, kind in zip(rows, kinds, strict=True)],
        keys=[math.prod(row) for row in rows],
    )


def eager_cross_attention(q: Tensor, k: Tensor, v: Tensor, who: Reach) -> Tensor:
    """Softmax attention of (heads, Q, head_dim) over (heads, K, head_dim) with a block mask: the oracle."""

    def owner(counts: list[int]) -> Tensor:
        return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(q.device)

    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(owner(who.queries)[:, None] != owner(who.keys)[None, :], float("-inf"))
    return scores.softmax(dim=-1, dtype=torch.float32).to(v.dtype) @ v


def sdpa_cross_attention(q: Tensor, k: Tensor, v: Tensor, who: Reach) -> Tensor:
    """The same without a mask; neighbours of equal counts share one call."""
    heads, _, dim = q.shape
    out, query_start, key_start = [], 0, 0
    for (queries, keys), same in groupby(zip(who.queries, who.keys, strict=True)):
        count = len(list(same))
        query_stop, key_stop = query_start + count * queries, key_start + count * keys
        query = q[:, query_start:query_stop].reshape(heads, count, queries, dim).transpose(0, 1)
        key = k[:, key_start:key_stop].reshape(heads, count, keys, dim).transpose(0, 1)
        value = v[:, key_start:key_stop].reshape(heads, count, keys, dim).transpose(0, 1)
        mixed = F.scaled_dot_product_attention(query, key, value)
        out.append(mixed.transpose(0, 1).reshape(heads, query_stop - query_start, dim))
        query_start, key_start = query_stop, key_stop
    return torch.cat(out, dim=1)


class CrossAttention(nn.Module):
    """Multi-head attention of queries over keys of the same width; the keys are also the values."""

    def __init__(self, width: int, config: ProjectorConfig) -> None:
        super().__init__()
        heads = config.num_attention_heads
        if heads is None or width % heads:
            raise ValueError(
                f"the encoder is {width} wide, which is not a multiple of the projector's num_attention_heads {heads}; "
                "choose another number of heads"
            )
        self.config = config
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, keys: Tensor, who: Reach) -> Tensor:
        """(Q, width) and (K, width) -> (Q, width)."""
        q, k, v = (
            layer(x).view(x.shape[0], self.heads, -1).transpose(0, 1)
            for layer, x in ((self.q, queries), (self.k, keys), (self.v, keys))
        )
        # The kernels behind sdpa serve every other implementation too: there is no mask to choose one for.
        eager = self.config._attn_implementation == "eager"
        mixed = (eager_cross_attention if eager else sdpa_cross_attention)(q, k, v, who)
        return self.out(mixed.transpose(0, 1).flatten(1))


class PerceiverLayer(nn.Module):
    """Queries attend to the patches and to each other, then an MLP (Flamingo: arXiv:2204.14198, section 3.1.1)."""

    def __init__(self, width: int, config: ProjectorConfig) -> None:
        super().__init__()
        self.norm_patches = nn.LayerNorm(width)
        self.norm_queries = nn.LayerNorm(width)
        self.attention = CrossAttention(width, config)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict(
            {"up": nn.Linear(width, config.hidden_size), "down": nn.Linear(config.hidden_size, width)}
        )
        self.act = ACT2FN["gelu_pytorch_tanh"]

    def forward(self, x: Tensor, features: Tensor, order: Tensor, who: Reach) -> Tensor:
        """x: (Q, width); features: (P, width); order: (P + Q,), which lays the keys of one visual together."""
        queries = self.norm_queries(x)
        keys = torch.cat([self.norm_patches(features), queries])[order]
        x = x + self.attention(queries, keys, who)
        return x + self.mlp["down"](self.act(self.mlp["up"](self.norm(x))))


class LearnedQueries(nn.Module):
    """A table of queries; a kind of visual that has fewer than another takes the first of them."""

    def __init__(self, width: int, config: ProjectorConfig) -> None:
        super().__init__()
        assert config.queries is not None
        self.table = nn.Embedding(max(config.queries.values()), width)

    def forward(self, counts: list[int]) -> Tensor:
        """The first ``counts[v]`` queries for each visual v, laid end to end: (Q, width)."""
        table = self.table(torch.arange(self.table.num_embeddings, device=self.table.weight.device))
        return torch.cat([table[:count] for count in counts])


class PerceiverResampler(PreTrainedModel):
    """The resampler of Flamingo (Alayrac et al. 2022, arXiv:2204.14198) over the patches of one visual.

    Flamingo adds learned time embeddings to its frames; here the encoder's features already hold z or time, y and x.
    """

    config: ProjectorConfig
    config_class = ProjectorConfig
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def __init__(self, config: ProjectorConfig, vision_width: int, text_width: int) -> None:
        super().__init__(config)
        assert config.num_hidden_layers is not None
        self.queries = LearnedQueries(vision_width, config)
        self.layers = nn.ModuleList([PerceiverLayer(vision_width, config) for _ in range(config.num_hidden_layers)])
        self.norm = nn.LayerNorm(vision_width)
        self.out = nn.Linear(vision_width, text_width)
        self.post_init()

    def forward(self, features: Tensor, grids: Tensor, kept: Tensor, axis_kinds: Tensor) -> Tensor:
        """Visual tokens of all visuals: (kept.sum(), text_width); arguments as in Projector.forward."""
        patches = reach(self.config, grids, axis_kinds)
        order = _side_by_side(patches.keys, patches.queries).to(features.device)
        who = Reach(queries=patches.queries, keys=[k + q for k, q in zip(patches.keys, patches.queries, strict=True)])
        x = self.queries(patches.queries)
        for layer in self.layers:
            x = layer(x, features, order, who)
        return self.out(self.norm(x))[kept]


class AttentionPooling(PreTrainedModel):
    """One layer of attention with learned queries, then a two-layer MLP.

    The attentional pooler of CoCa (Yu et al. 2022, arXiv:2205.01917) before an MLP, as CT-CHAT has it (Hamamci et al.
    2024, arXiv:2403.17834: 256 queries); here at the encoder's width, with biases.
    """

    config: ProjectorConfig
    config_class = ProjectorConfig
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def __init__(self, config: ProjectorConfig, vision_width: int, text_width: int) -> None:
        super().__init__(config)
        self.queries = LearnedQueries(vision_width, config)
        self.norm_queries = nn.LayerNorm(vision_width)
        self.norm_patches = nn.LayerNorm(vision_width)
        self.attention = CrossAttention(vision_width, config)
        self.norm = nn.LayerNorm(vision_width)
        self.mlp = nn.ModuleDict(
            {"up": nn.Linear(vision_width, config.hidden_size), "down": nn.Linear(config.hidden_size, text_width)}
        )
        self.act = ACT2FN["gelu_pytorch_tanh"]
        self.post_init()

    def forward(self, features: Tensor, grids: Tensor, kept: Tensor, axis_kinds: Tensor) -> Tensor:
        """Visual tokens of all visuals: (kept.sum(), text_width); arguments as in Projector.forward."""
        who = reach(self.config, grids, axis_kinds)
        queries = self.norm_queries(self.queries(who.queries))
        pooled = self.attention(queries, self.norm_patches(features), who)
        return self.mlp["down"](self.act(self.mlp["up"](self.norm(pooled))))[kept]


def _side_by_side(first: list[int], second: list[int]) -> Tensor:
    """Indices into (all of first, then all of second) that give (first of 0, second of 0, first of 1, ...).

    >>> _side_by_side([2, 1], [1, 1]).tolist()
    [0, 1, 3, 2, 4]
    """
    start, middle, parts = 0, sum(first), []
    for a, b in zip(first, second, strict=True):
        parts += [torch.arange(start, start + a), torch.arange(middle, middle + b)]
        start, middle = start + a, middle + b
    return torch.cat(parts)
