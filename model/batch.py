"""PackedBatch: every tensor the network eats, with its shape, and the check that they agree."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

IGNORED = -100
"""Target of a token that carries no loss."""

IMAGE, VOLUME, VIDEO = 0, 1, 2
"""Codes in ``axis_kinds``: what axis 0 of a visual's grid means (one slice, depth, time)."""


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """S samples laid end to end in one row of T tokens; V visuals laid end to end in one row of P patches.

    Attributes:
        tokens: (T,) int64.
        targets: (T,) int64; ``targets[i]`` is the token to predict AT position i (already shifted), or IGNORED.
        positions: (T,) int64; restart from 0 at each sample; a dropped visual token leaves its gap.
        cu_seqlens: (S+1,) int32; sample s is tokens[cu_seqlens[s]:cu_seqlens[s+1]].
        patches: (P, patch_dim) float32.
        grids: (V, 3) int64; patches of each visual along (z or time, y, x); their products sum to P.
        spacing: (V, 3) float32; millimetres per VOXEL along each axis as cut into patches, NaN when unknown; for
            a video axis 0 is seconds.
        axis_kinds: (V,) int64; IMAGE, VOLUME or VIDEO.
        kept: (N,) bool; of the tokens that the projector makes of all visuals, in order, those that the decoder sees.
        visual_tokens: (V,) int64; how many of them each visual has: what its run of placeholders is long.
        placements: (K,) int64; the visual that each run of placeholder tokens shows, in token order: a visual that
            two samples share (chosen and rejected) is encoded once.
        sample_ids: S names.
        features: (P, vision_hidden), what the encoder made of the patches, when it has been run before (a frozen
            encoder's cache, or a pass that shares it); ``patches`` may then be empty. None: the encoder runs.
        named: of a stage that keeps the features of a frozen encoder: one data_recipes.feature_cache.NamedVisual for
            each visual; ``patches`` holds those of the visuals whose features are not known. Else empty.
        rows: what each sample was made from (data_recipes.sample.Sample), one per sample and not per side; empty when
            nobody needs it.
    """

    tokens: Tensor
    targets: Tensor
    positions: Tensor
    cu_seqlens: Tensor
    patches: Tensor
    grids: Tensor
    spacing: Tensor
    axis_kinds: Tensor
    kept: Tensor
    visual_tokens: Tensor
    placements: Tensor
    sample_ids: tuple[str, ...]
    features: Tensor | None = None
    named: tuple[Any, ...] = ()
    rows: tuple[Any, ...] = ()

    def check(self, *, visual_token_id: int) -> None:
        """Raise ValueError, naming both numbers, when the tensors do not agree with each other."""
        total = len(self.tokens)
        if self.targets.shape != (total,) or self.positions.shape != (total,):
            raise ValueError(
                f"{total} tokens, but targets {tuple(self.targets.shape)} and positions {tuple(self.positions.shape)}"
            )
        if int(self.cu_seqlens[-1]) != total or len(self.cu_seqlens) != len(self.sample_ids) + 1:
            raise ValueError(
                f"cu_seqlens {self.cu_seqlens.tolist()[:4]}...{int(self.cu_seqlens[-1])} does not cut {total} tokens "
                f"into {len(self.sample_ids)} samples"
            )
        made = self.patches if self.features is None else self.features
        held = self.grids.prod(dim=1)  # (V,)
        if self.named:
            held = held[[visual.features is None for visual in self.named]]
        if int(held.sum()) != len(made):
            raise ValueError(f"grids hold {int(held.sum())} patches, got {len(made)}")
        if int(self.kept.sum()) != int(self.visual_tokens.sum()):
            raise ValueError(f"{int(self.kept.sum())} tokens are kept of visuals with {self.visual_tokens.tolist()}")
        expected = int(self.visual_tokens[self.placements].sum())
        found = int((self.tokens == visual_token_id).sum())
        if expected != found:
            raise ValueError(
                f"{found} placeholder tokens for {expected} visual tokens of samples {self.sample_ids}; "
                "render the samples with the processor that the model was saved with"
            )

    def to(self, device: torch.device | str) -> PackedBatch:
        """A copy on ``device``; host copies are asynchronous when pinned."""
        moved: dict[str, Any] = {
            f.name: value.to(device, non_blocking=True)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)

    @property
    def supervised(self) -> int:
        """Number of tokens that carry loss."""
        return int((self.targets != IGNORED).sum())

    def model_inputs(self) -> dict[str, Tensor]:
        """Keyword arguments of MedVLMForConditionalGeneration.forward for this pack (batch axis of 1)."""
        features = {} if self.features is None else {"features": self.features}
        return features | {
            "input_ids": self.tokens[None],
            "position_ids": self.positions[None],
            "cu_seqlens": self.cu_seqlens,
            "patches": self.patches,
            "grids": self.grids,
            "spacing": self.spacing,
            "axis_kinds": self.axis_kinds,
            "kept": self.kept,
            "visual_tokens": self.visual_tokens,
            "placements": self.placements,
        }


def shown_by_row(counts: list[int], visual_tokens: Tensor, placements: Tensor) -> list[list[int]]:
    """The visuals that each row or sample shows, in order.

    Args:
        counts: placeholder tokens of each row.
        visual_tokens, placements: as in PackedBatch, over all rows.
    """
    left = iter(zip(placements.tolist(), visual_tokens[placements].tolist(), strict=True))
    rows = []
    for wanted in counts:
        row = []
        while wanted > 0:
            index, found = next(left)
            row.append(index)
            wanted -= found
        rows.append(row)
    return rows


def write_features(embeds: Tensor, placeholder: Tensor, features: Tensor) -> Tensor:
    """Token embeddings (B, L, hidden) with features (N, hidden) in the place of the placeholders (B, L).

    Raises:
        ValueError: there are not N placeholders; names both numbers.
    """
    if int(placeholder.sum()) != len(features):
        raise ValueError(
            f"{int(placeholder.sum())} placeholder tokens for {len(features)} visual tokens; use the processor that "
            "was saved with this model"
        )
    return embeds.masked_scatter(placeholder[..., None], features.to(embeds.dtype))
