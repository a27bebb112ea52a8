"""MedVLMProcessor: visuals + chat messages -> patches, grids, tokens, loss mask. Training and inference share it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from medvlm.model.batch import IMAGE, VIDEO, VOLUME
from medvlm.model.chat_template import end_of_turn_ids, tokenize_chat
from medvlm.model.geometry import middles, resize_image, resize_volume
from medvlm.model.grid import GridRule, Size3
from medvlm.model.intensity import IntensityRule, picture_channels, volume_windows
from medvlm.model.patches import cut
from medvlm.model.reduction import BoundedReduction, background_tokens, brightest_in_tokens, reduction_from
from medvlm.model.slabs import windowed_and_resized
from medvlm.model.tokenizer import VISUAL_TOKEN
from medvlm.model.visual import Image, Kind, Video, Visual, Volume, check_per_kind, kind_of

AXIS_KIND = {"image": IMAGE, "volume": VOLUME, "video": VIDEO}


@dataclass(frozen=True, kw_only=True)
class PatchedVisual:
    """One visual as the encoder sees it.

    Attributes:
        patches: (P, patch_dim) float32 in [-1, 1]; the patches of one visual token lie together.
        grid: patches along (z or time, y, x).
        spacing: per voxel after resampling: millimetres (axis 0 of a video: seconds), NaN where unknown.
        axis_kind: IMAGE, VOLUME or VIDEO.
        kept: (N,) bool; of the tokens that the projector makes of the grid, those that the decoder sees.
    """

    patches: np.ndarray
    grid: Size3
    spacing: tuple[float, float, float]
    axis_kind: int
    kept: np.ndarray

    @property
    def tokens(self) -> int:
        """Visual tokens that the decoder sees."""
        return int(self.kept.sum())


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """One conversation, ready for packing.

    Attributes:
        tokens: (L,) int64.
        supervised: (L,) bool; True on tokens that the assistant must learn to write.
        positions: (L,) int64; from 0, one a token; a visual token that was dropped leaves its gap.
        visuals: in the order of their placeholder runs.
    """

    tokens: np.ndarray
    supervised: np.ndarray
    positions: np.ndarray
    visuals: tuple[PatchedVisual, ...]


class MedVLMProcessor(ProcessorMixin):
    """Everything between a scan in physical units and the tensors of the model; saved with the checkpoint.

    Args:
        tokenizer: any fast tokenizer with a chat template and the placeholder token.
        patch_size, merge: as in the model's config.
        max_patches: per kind, the most patches of one visual.
        max_depth: per kind, the most slices or frames.
        intensity: fields of IntensityRule: how physical units become channels.
        slices: how a volume of more slices than max_depth loses some: "average" over neighbours, or "nearest": slices
            at equal physical distances, as they are. None is shown twice.
        reduction: fields of model.reduction: which visual tokens the decoder sees; None: all.
        projector: ``ProjectorConfig.token_rule()``: how a projector that does not merge counts its tokens.
        position_gaps: a dropped token keeps its place in the decoder's positions, so that what follows it in z, and the
            text, is as far away as without reduction.
    """

    attributes = ["tokenizer"]  # noqa: RUF012 (ProcessorMixin reads it as a class attribute)
    tokenizer_class = "AutoTokenizer"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        patch_size: Sequence[int] = (2, 16, 16),
        merge: Sequence[int] = (1, 2, 2),
        max_patches: dict[str, int] | None = None,
        max_depth: dict[str, int] | None = None,
        intensity: dict[str, Any] | None = None,
        slices: Literal["average", "nearest"] = "average",
        reduction: dict[str, Any] | None = None,
        projector: dict[str, Any] | None = None,
        position_gaps: bool = True,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.patch_size = list(patch_size)
        self.merge = list(merge)
        self.max_patches = {"image": 1024, "volume": 4096, "video": 4096, **(max_patches or {})}
        self.max_depth = {"volume": 64, "video": 32, **(max_depth or {})}
        self._intensity = IntensityRule.from_dict(intensity or {})
        self.intensity = self._intensity.to_dict()
        self.slices = slices
        self.reduction = None if reduction is None else dict(reduction)
        self._reduction = reduction_from(self.reduction)
        self.projector = None if projector is None else dict(projector)
        self.position_gaps = position_gaps
        super().__init__(tokenizer, chat_template=chat_template or tokenizer.chat_template, **kwargs)
        if reduction is not None and projector is not None:
            raise ValueError(
                f"reduction chooses among merged patches, but the projector makes its own tokens ({projector}); remove "
                "model.processor.reduction, or use a projector of kind mlp or soft_moe"
            )
        if isinstance(self._reduction, BoundedReduction):
            self._reduction.check_patch(tuple(self.patch_size))  # type: ignore[arg-type]
        if slices not in ("average", "nearest"):
            raise ValueError(f"slices is {slices!r}; use average or nearest")
        for name, values in (("max_patches", self.max_patches), ("max_depth", self.max_depth)):
            check_per_kind(name, values)
        if projector is not None and self.merge != [1, 1, 1]:
            raise ValueError(
                f"projector is {projector}, which makes tokens of single patches, but merge is {self.merge}; set "
                "merge to [1, 1, 1], or use a projector of kind mlp or soft_moe"
            )
        if VISUAL_TOKEN not in tokenizer.get_vocab():
            raise ValueError(f"the tokenizer has no {VISUAL_TOKEN}; pass it through model.tokenizer.add_visual_token")
        self.visual_token_id = int(tokenizer.convert_tokens_to_ids(VISUAL_TOKEN))  # type: ignore[arg-type]

    @property
    def rule(self) -> GridRule:
        """The budget and the patch arithmetic."""
        return GridRule(
            patch=tuple(self.patch_size),  # type: ignore[arg-type]
            merge=tuple(self.merge),  # type: ignore[arg-type]
            max_patches=self.max_patches,
            max_depth=self.max_depth,
            slices=self.slices,
            **(self.projector or {}),
        )

    def visual_settings(self) -> dict[str, Any]:
        """All that decides what ``patch`` makes of a visual, JSON-ready: the name of a cache entry."""
        names = ("patch_size", "merge", "max_patches", "max_depth", "intensity", "slices", "reduction", "projector")
        return {name: getattr(self, name) for name in names}

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an assistant's turn."""
        return end_of_turn_ids(self.tokenizer)

    def patch(self, visual: Visual) -> PatchedVisual:
        """Window, resample and cut one visual; the spacing follows the resampling."""
        rule, kind = self.rule, kind_of(visual)
        match visual:
            case Image():
                size: Size3 = (1, *(visual.full_size or visual.pixels.shape[1:]))  # type: ignore[assignment]
                plane = visual.spacing_mm or (np.nan, np.nan)
                spacing = (np.nan, *plane)
            case Volume():
                size = visual.voxels.shape  # type: ignore[assignment]
                spacing = visual.spacing_mm or (np.nan, np.nan, np.nan)  # type: ignore[assignment]
            case Video():
                size = (len(visual.frames), *visual.frames.shape[2:])
                plane = visual.spacing_mm or (np.nan, np.nan)
                span = float(visual.times_s[-1] - visual.times_s[0])
                spacing = (span / max(1, len(visual.times_s) - 1), *plane)
        target = rule.target_size(size, kind)
        if isinstance(visual, Video):
            visual = _frames_at(visual, target[0])
        array = self._channels(visual, target)
        extent = _extent(visual) if isinstance(visual, Image) else None
        lengths = size if extent is None else (1, *extent)
        scaled = tuple(s * old / new for s, old, new in zip(spacing, lengths, target, strict=True))
        grid = rule.grid(target)
        patches = cut(array, rule, target[0], signed=True)
        return PatchedVisual(
            patches=patches,
            grid=grid,
            spacing=scaled,  # type: ignore[arg-type]
            axis_kind=AXIS_KIND[kind],
            kept=self._kept(visual, array, patches, grid, kind),
        )

    def _channels(self, visual: Visual, target: Size3) -> np.ndarray:
        """(C, D, *target[1:]) in [0, 1]: C is 1 where three channels are alike, D is 1 of an image, else target[0]."""
        if isinstance(visual, Volume):
            windows = volume_windows(visual, self._intensity)
            voxels = self._slices(visual.voxels, target[0])
            return windowed_and_resized(voxels, windows, target)
        if isinstance(visual, Image):
            return resize_image(picture_channels(visual, self._intensity), target[1:], _extent(visual))[:, None]
        frames = [resize_image(frame, target[1:]) for frame in visual.frames]
        return np.ascontiguousarray(np.stack(frames, axis=1))

    def _slices(self, voxels: np.ndarray, depth: int) -> np.ndarray:
        """The slices of a volume that are resampled: all, or ``depth`` where the rule is to choose."""
        if self.slices == "nearest" and len(voxels) > depth:
            return voxels[middles(len(voxels), depth)]
        return voxels

    def cost(self, size: Size3, kind: Kind) -> tuple[int, int] | None:
        """(patches, visual tokens) that ``patch`` will make of a visual, told without its voxels.

        Args:
            size: (depth or frames, height, width) in voxels, depth 1 for an image.
            kind: of the visual.

        Returns:
            None when the reduction of this processor looks at the content.

        Raises:
            ValueError: as ``patch``, when the budget is too small.
        """
        if self._reduction is not None:
            return None
        rule = self.rule
        grid = rule.grid(rule.target_size(size, kind))
        return math.prod(grid), rule.tokens(grid, kind)

    def _kept(self, visual: Visual, array: np.ndarray, patches: np.ndarray, grid: Size3, kind: Kind) -> np.ndarray:
        """Which tokens the decoder sees; ``array``, of ``_channels``, is what the patches were cut from."""
        rule, reduction = self.rule, self._reduction
        if reduction is None:
            return np.ones(rule.tokens(grid, kind), dtype=bool)
        background = None
        if isinstance(reduction, BoundedReduction) and reduction.background:
            level = reduction.black
            if isinstance(visual, Image | Volume) and visual.unit == "HU":
                # Windows clip: what is air is certain in HU only.
                level = reduction.air_hu
                if isinstance(visual, Image):
                    array = resize_image(visual.pixels[:1], array.shape[2:], _extent(visual))[:, None]  # type: ignore[arg-type]
                else:
                    array = resize_volume(self._slices(visual.voxels, array.shape[1]), array.shape[1:])[None]  # type: ignore[arg-type]
            depth = grid[0] * rule.patch[0]
            array = np.broadcast_to(array, (len(array), depth, *array.shape[2:]))
            background = background_tokens(brightest_in_tokens(array, rule.factor), level)
        tokens: Size3 = tuple(g // m for g, m in zip(grid, self.merge, strict=True))  # type: ignore[assignment]
        return reduction.keep(reduction.columns(patches, tokens, rule.patch), kind, background)

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        visuals: Sequence[PatchedVisual],
        add_generation_prompt: bool = False,
    ) -> Rendered:
        """Tokenize ``messages`` around visuals that were already cut into patches."""
        chat = tokenize_chat(
            self.tokenizer,
            messages,
            [visual.tokens for visual in visuals],
            self.visual_token_id,
            self.end_ids,
            add_generation_prompt,
        )
        return Rendered(
            tokens=np.asarray(chat.tokens, dtype=np.int64),
            supervised=np.asarray(chat.supervised, dtype=bool),
            positions=self._positions(chat.tokens, visuals),
            visuals=tuple(visuals),
        )

    def _positions(self, tokens: Sequence[int], visuals: Sequence[PatchedVisual]) -> np.ndarray:
        """(L,) int64: a visual's tokens stand at their index among all of its grid; the text goes on after these."""
        positions = np.arange(len(tokens))
        if not self.position_gaps or all(visual.kept.all() for visual in visuals):
            return positions
        places = np.flatnonzero(np.asarray(tokens) == self.visual_token_id)
        first = 0
        for visual in visuals:
            run = places[first : first + visual.tokens]
            first += visual.tokens
            # What stands before the run is in place already; what follows it moves behind the whole grid.
            positions[run[-1] + 1 :] += len(visual.kept) - visual.tokens
            positions[run] = positions[run[0]] + np.flatnonzero(visual.kept)
        return positions

    def __call__(  # type: ignore[override]
        self,
        messages: Sequence[Sequence[dict[str, Any]]],
        visuals: Sequence[Sequence[Visual]] | None = None,
        add_generation_prompt: bool = True,
        **_: Any,
    ) -> BatchFeature:
        """A left-padded batch for ``generate``.

        Args:
            messages: one conversation per row.
            visuals: per row, its Images, Volumes and Videos in the order of the message parts.

        Returns:
            input_ids (B, L), attention_mask (B, L), position_ids (B, L) when a dropped token left a gap, and when any
            row has visuals: patches (P, patch_dim), grids (V, 3), spacing (V, 3), axis_kinds (V,), kept (N,),
            visual_tokens (V,), placements (V,).
        """
        rows = visuals if visuals is not None else [[] for _ in messages]
        rendered = [
            self.render(conversation, [self.patch(v) for v in row], add_generation_prompt)
            for conversation, row in zip(messages, rows, strict=True)
        ]
        pad = self.tokenizer.pad_token_id
        return left_padded(rendered, self.tokenizer.eos_token_id if pad is None else pad)


def left_padded(rendered: Sequence[Rendered], pad: int) -> BatchFeature:
    """Rows of unlike length as a batch for ``generate``; what it holds is told by MedVLMProcessor.__call__.

    A visual object that several rows show stands in it once, and is encoded once.
    """
    longest = max(len(r.tokens) for r in rendered)
    ids = torch.full((len(rendered), longest), int(pad))
    mask, positions = torch.zeros_like(ids), torch.zeros_like(ids)
    for index, r in enumerate(rendered):
        ids[index, longest - len(r.tokens) :] = torch.from_numpy(r.tokens)
        mask[index, longest - len(r.tokens) :] = 1
        positions[index, longest - len(r.tokens) :] = torch.from_numpy(r.positions)
    batch: dict[str, torch.Tensor] = {"input_ids": ids, "attention_mask": mask}
    if any(int(r.positions[-1]) != len(r.positions) - 1 for r in rendered):
        # generate() goes on from the last one; without gaps it counts the mask itself.
        batch["position_ids"] = positions
    shown = [visual for r in rendered for visual in r.visuals]
    if shown:
        distinct = {id(visual): visual for visual in shown}
        places = {name: place for place, name in enumerate(distinct)}
        batch |= visual_tensors(list(distinct.values()))
        batch["placements"] = torch.tensor([places[id(visual)] for visual in shown])
    return BatchFeature(batch)


def visual_tensors(visuals: Sequence[PatchedVisual]) -> dict[str, torch.Tensor]:
    """Lay visuals end to end.

    Returns:
        patches (P, patch_dim), grids (V, 3), spacing (V, 3), axis_kinds (V,), kept (N,), visual_tokens (V,).
    """
    return {
        "patches": torch.from_numpy(np.concatenate([v.patches for v in visuals])),
        "grids": torch.tensor([v.grid for v in visuals], dtype=torch.int64),
        "spacing": torch.tensor([v.spacing for v in visuals], dtype=torch.float32),
        "axis_kinds": torch.tensor([v.axis_kind for v in visuals], dtype=torch.int64),
        "kept": torch.from_numpy(np.concatenate([v.kept for v in visuals])),
        "visual_tokens": torch.tensor([v.tokens for v in visuals], dtype=torch.int64),
    }


def _extent(image: Image) -> tuple[float, float] | None:
    """Rows and columns of ``image`` that the picture fills, when it was decoded at a smaller scale."""
    if image.full_size is None:
        return None
    return image.full_size[0] / image.scale, image.full_size[1] / image.scale


def _frames_at(video: Video, count: int) -> Video:
    """``count`` frames evenly over the clip, first and last kept; frames are chosen, never averaged."""
    chosen = np.linspace(0, len(video.frames) - 1, count).round().astype(int)
    times = np.linspace(video.times_s[0], max(video.times_s[-1], video.times_s[0] + 1e-6 * count), count)
    return Video(
        frames=np.ascontiguousarray(video.frames[chosen]),
        times_s=times if count > 1 else times[:1],
        modality=video.modality,
        spacing_mm=video.spacing_mm,
    )
