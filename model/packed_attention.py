"""Decoder attention over a pack, one sample after the other: no dense (T, T) mask is ever made or multiplied.

Registered with transformers as "sdpa_packed" and taken in the place of "sdpa" by decoders that allow it (a pack of six
samples then costs a sixth of the products of the masked square). Given a mask, as in generation, it is plain sdpa.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_packed"


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    segment_lengths: list[int] | None = None,
    sequence_group: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each segment.

    Args:
        query: (1, heads, T, head_dim); key and value: (1, key_value_heads, T, head_dim).
        segment_lengths: of the samples; None for an ordinary batch.
        sliding_window: how many tokens back a token sees; None for all.
        sequence_group: processes that hold a slice of the T tokens each (train.sequence_parallel); T is then that of
            the slice, and segment_lengths are those of the whole pack.

    Returns:
        (1, T, heads, head_dim), and None for the weights.
    """
    if segment_lengths is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout,
            sliding_window=sliding_window, **kwargs,
        )  # fmt: skip
    if sequence_group is not None:
        heads = query.shape[1]
        query, key, value = (sequence_group.to_heads(tensor, heads) for tensor in (query, key, value))
    grouped = query.shape[1] != key.shape[1]
    out = []
    for q, k, v in zip(*(x.split(segment_lengths, dim=2) for x in (query, key, value)), strict=True):
        length = q.shape[2]
        mask = None
        if sliding_window is not None and length > sliding_window:
            place = torch.arange(length, device=q.device)
            back = place[:, None] - place[None, :]
            mask = (back >= 0) & (back < sliding_window)
        out.append(
            F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling, enable_gqa=grouped
            )
        )
    joined = torch.cat(out, dim=2).transpose(1, 2).contiguous()
    return joined if sequence_group is None else sequence_group.to_tokens(joined), None


def packed_mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """No mask for a pack (there is no padding to hide); sdpa's own for a padded batch."""
    return None if attention_mask is None else sdpa_mask(*args, attention_mask=attention_mask, **kwargs)  # type: ignore[misc]


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, packed_mask)
