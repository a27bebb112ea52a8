"""What a family of vision-language models must say of itself; everything else is shared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from medvlm.model.batch import IMAGE, VIDEO, shown_by_row
from medvlm.model.external.pictures import Pictures
from medvlm.model.packed_attention import NAME as PACKED
from medvlm.model.processing import PatchedVisual


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Pictures as the family's own image processor prepares them.

    Attributes:
        patches: (P, D) float32; rows of ``pixel_values``.
        grid: three numbers whose product is P.
        tokens: placeholder tokens of all pictures together.
    """

    patches: np.ndarray
    grid: tuple[int, int, int]
    tokens: int


@dataclass(frozen=True, kw_only=True)
class VisualInputs:
    """The visuals of a pack or batch; shapes as in PackedBatch."""

    patches: Tensor
    grids: Tensor
    spacing: Tensor
    axis_kinds: Tensor
    visual_tokens: Tensor
    placements: Tensor

    @property
    def rows(self) -> tuple[Tensor, ...]:
        """The patches of each visual."""
        return self.patches.split(self.grids.prod(dim=1).tolist())

    def shown_by_row(self, counts: list[int]) -> list[list[int]]:
        """The visuals that each row or sample shows, from the number of placeholders in each."""
        return shown_by_row(counts, self.visual_tokens, self.placements)

    def token_kinds(self) -> Tensor:
        """(N,) the axis kind of each placeholder token, in token order."""
        return self.axis_kinds[self.placements].repeat_interleave(self.visual_tokens[self.placements])


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Features of each visual, in the order of the visuals.

    Attributes:
        features: per visual (tokens, text hidden).
        deep: per visual (layers, tokens, text hidden), added after the first decoder layers (Qwen3-VL); else empty.
    """

    features: list[Tensor]
    deep: list[Tensor]


@dataclass(frozen=True, kw_only=True)
class Pack:
    """One pack on its way into the decoder.

    Attributes:
        ids: (1, T).
        embeds: (1, T, hidden) with the features in the place of the placeholders.
        placeholder: (1, T) bool.
        positions: (1, T), restarting at each sample.
        cu_seqlens: (S+1,).
        visuals: None for text only.
        deep: (layers, N, hidden) in token order, or None.
    """

    ids: Tensor
    embeds: Tensor
    placeholder: Tensor
    positions: Tensor
    cu_seqlens: Tensor
    visuals: VisualInputs | None
    deep: Tensor | None


class Family(ABC):
    """One family of vision-language models.

    Attributes:
        name: as people know it.
        packs: its decoder is causal, so that samples can lie end to end; else ``pads_because`` says why not.
        has_clips: it has a path for clips.
        frames_multiple: frames that one temporal patch covers.
        fixed_size: its pictures have a fixed number of tokens, whatever ``max_pixels`` says.
    """

    name: str
    packs = True
    pads_because = ""
    has_clips = True
    frames_multiple = 1
    fixed_size = True

    def __init__(self, config: PretrainedConfig) -> None:
        self.config: Any = config

    @property
    def placeholder_id(self) -> int:
        """The token that a feature replaces. A pack uses the image's for clips too; the library gets its own."""
        return int(self.config.image_token_id)

    @abstractmethod
    def template_marks(self, tokenizer: Any) -> tuple[str, str | None]:
        """What the chat template writes for an image and for a clip, to be replaced by ``written``."""

    @abstractmethod
    def cut(self, pictures: Pictures, image_processor: Any, max_pixels: int | None) -> Cut:
        """Let the family's image processor resize, normalise and cut."""

    @abstractmethod
    def written(self, visual: PatchedVisual, tokenizer: Any) -> list[str]:
        """The text of each picture of ``visual`` (a clip: of the whole) with its placeholders and special tokens."""

    def in_one_call(self, visuals: VisualInputs) -> bool:
        """Whether the library's forward takes these visuals as one batch."""
        return True

    def alone_or_among(self, visual: PatchedVisual, pictures: int) -> PatchedVisual:
        """``visual`` as it is shown when its conversation holds ``pictures`` images."""
        return visual

    @abstractmethod
    def encode(self, model: Any, visuals: VisualInputs) -> Encoded:
        """Run vision tower and projector once over all visuals."""

    @abstractmethod
    def blank(self, model: Any) -> VisualInputs:
        """The smallest image, for a training pack of text only."""

    @abstractmethod
    def library_inputs(self, ids: Tensor, visuals: VisualInputs | None) -> dict[str, Any]:
        """``input_ids`` and the visual arguments of the library's own forward for a padded batch (B, L)."""

    @abstractmethod
    def component_of(self, name: str) -> str:
        """vision, projector or text, from a parameter's or module's name in the library's model."""

    def decode(self, model: Any, pack: Pack) -> Tensor:
        """Last hidden state (1, T, hidden) of ``pack``; attention stays inside each sample."""
        decoder = model.model.language_model
        output = decoder(
            inputs_embeds=pack.embeds, position_ids=pack.positions, use_cache=False, **segments(decoder, pack)
        )
        return output.last_hidden_state

    def pack_attention(self, model: Any) -> None:
        """Let the decoder attend sample by sample, where the samples lie end to end."""
        decoder = model.model.language_model
        if self.packs and decoder.config._attn_implementation == "sdpa" and decoder._supports_attention_backend:
            decoder.set_attn_implementation(PACKED)

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Component -> (numbers that one row of patches or token takes in a layer, layers), to estimate memory."""
        vision, text = self.config.vision_config, self.config.text_config
        layers = getattr(vision, "num_hidden_layers", None) or vision.depth
        return {"vision": (vision.hidden_size, layers), "text": (text.hidden_size, text.num_hidden_layers)}


def segments(decoder: nn.Module, pack: Pack) -> dict[str, Any]:
    """What our attention over packs needs to be told."""
    if decoder.config._attn_implementation != PACKED:  # type: ignore[union-attr]
        return {}
    return {"segment_lengths": pack.cu_seqlens.diff().tolist()}


def is_clip(kind: int, family: Family) -> bool:
    """Whether a visual of this axis kind went in as one clip."""
    return kind == VIDEO and family.has_clips


def is_run(visual: PatchedVisual, family: Family) -> bool:
    """Whether ``visual`` is several images in a row."""
    return visual.axis_kind != IMAGE and not is_clip(visual.axis_kind, family)


def blank_visual(patches: Tensor, grid: tuple[int, int, int], tokens: int) -> VisualInputs:
    """One image as VisualInputs."""
    device = patches.device
    return VisualInputs(
        patches=patches,
        grids=torch.tensor([grid], device=device),
        spacing=torch.full((1, 3), float("nan"), device=device),
        axis_kinds=torch.full((1,), IMAGE, device=device),
        visual_tokens=torch.tensor([tokens], device=device),
        placements=torch.zeros(1, dtype=torch.int64, device=device),
    )
