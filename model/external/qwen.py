"""Qwen2.5-VL (Lingshu is one) and Qwen3-VL: free resolution, rotary positions on three axes, clips in frame pairs."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medvlm.model.batch import IMAGE, VIDEO
from medvlm.model.external.family import (
    Cut,
    Encoded,
    Family,
    Pack,
    VisualInputs,
    blank_visual,
    is_clip,
    segments,
)
from medvlm.model.external.pictures import Pictures
from medvlm.model.processing import PatchedVisual

_SLICE_PIXELS = 448 * 448
_IMAGE_TYPE, _CLIP_TYPE = 1, 2


class Qwen25VL(Family):
    """Qwen2.5-VL technical report, arXiv:2502.13923; transformers' Qwen2_5_VLForConditionalGeneration."""

    name = "Qwen2.5-VL"
    frames_multiple = 2
    fixed_size = False
    image_mark, clip_mark = "<|image_pad|>", "<|video_pad|>"

    @property
    def merge(self) -> int:
        """Patches that one token merges: a square of the spatial merge size."""
        return int(self.config.vision_config.spatial_merge_size) ** 2

    def template_marks(self, tokenizer: Any) -> tuple[str, str | None]:
        return self.image_mark, self.clip_mark

    def cut(self, pictures: Pictures, image_processor: Any, max_pixels: int | None) -> Cut:
        size = dict(image_processor.size)
        if pictures.shown != "image" or max_pixels is not None:
            limit = _SLICE_PIXELS if max_pixels is None else max_pixels
            size["longest_edge"] = limit
            size["shortest_edge"] = min(size["shortest_edge"], limit)
        made = image_processor(images=list(pictures.rgb), size=size, return_tensors="np")
        patches = np.asarray(made["pixel_values"], dtype=np.float32)
        grids = np.asarray(made["image_grid_thw"])
        depth, (height, width) = len(grids), (int(g) for g in grids[0, 1:])
        if pictures.shown == "clip":
            patches = self._clip_patches(patches, depth)
            depth = len(patches) // (height * width)
        return Cut(patches=patches, grid=(depth, height, width), tokens=len(patches) // self.merge)

    def _clip_patches(self, patches: np.ndarray, frames: int) -> np.ndarray:
        """Rows of single frames, each holding its frame twice, -> rows that hold successive frames.

        A row is (channel, frame in patch, y, x); the last frame is repeated to fill the last patch, as in the library.
        """
        vision = self.config.vision_config
        thick, side = int(vision.temporal_patch_size), int(vision.patch_size)
        single = patches.reshape(frames, -1, vision.in_channels, thick, side, side)[:, :, :, 0]
        missing = -frames % thick
        single = np.concatenate([single, np.repeat(single[-1:], missing, axis=0)])
        grouped = single.reshape(-1, thick, *single.shape[1:])  # (t, thick, hw, C, y, x)
        return np.ascontiguousarray(grouped.transpose(0, 2, 3, 1, 4, 5)).reshape(-1, patches.shape[1])

    def written(self, visual: PatchedVisual, tokenizer: Any) -> list[str]:
        if visual.axis_kind in (IMAGE, VIDEO):
            return [self.image_mark * visual.tokens]
        slices = visual.grid[0]
        return [self.image_mark * (visual.tokens // slices)] * slices

    def _grids(self, visuals: VisualInputs) -> Tensor:
        """One row per image; the slices of a volume are images, a clip is one row."""
        rows = []
        for (depth, height, width), kind in zip(visuals.grids.tolist(), visuals.axis_kinds.tolist(), strict=True):
            rows += [[depth, height, width]] if is_clip(kind, self) else [[1, height, width]] * depth
        return torch.tensor(rows, device=visuals.grids.device)

    def encode(self, model: Any, visuals: VisualInputs) -> Encoded:
        output = model.model.get_image_features(visuals.patches, self._grids(visuals), return_dict=True)
        counts = visuals.visual_tokens.tolist()
        features = _joined(output.pooler_output).split(counts)
        deep = getattr(output, "deepstack_features", None)
        if not deep:
            return Encoded(features=list(features), deep=[])
        layers = torch.stack([_joined(layer) for layer in deep])
        return Encoded(features=list(features), deep=list(layers.split(counts, dim=1)))

    def blank(self, model: Any) -> VisualInputs:
        vision = self.config.vision_config
        merge = int(vision.spatial_merge_size)
        width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        return blank_visual(torch.zeros(merge * merge, width, device=model.device), (1, merge, merge), 1)

    def positions(self, model: Any, pack: Pack) -> Tensor:
        """(4, 1, T): text positions, which keep samples apart, and time, height, width by the library's own rule."""
        if pack.visuals is None:
            return pack.positions[None].expand(4, -1, -1)
        types = self._types(pack.placeholder, pack.visuals)
        borders = list(pairwise(pack.cu_seqlens.tolist()))
        counts = [int(pack.placeholder[0, start:stop].sum()) for start, stop in borders]
        pieces = []
        for (start, stop), shown in zip(borders, pack.visuals.shown_by_row(counts), strict=True):
            position, _ = model.model.get_rope_index(
                pack.ids[:, start:stop],
                mm_token_type_ids=types[:, start:stop],
                **self._grid_arguments(pack.visuals, shown),
            )
            pieces.append(position)
        return torch.cat([pack.positions[None], torch.cat(pieces, dim=2)])

    def decode(self, model: Any, pack: Pack) -> Tensor:
        decoder = model.model.language_model
        extra: dict[str, Any] = segments(decoder, pack)
        if pack.deep is not None:
            extra |= {"visual_pos_masks": pack.placeholder, "deepstack_visual_embeds": list(pack.deep)}
        output = decoder(inputs_embeds=pack.embeds, position_ids=self.positions(model, pack), use_cache=False, **extra)
        return output.last_hidden_state

    def _types(self, placeholder: Tensor, visuals: VisualInputs) -> Tensor:
        """0 on text, 1 on images, 2 on clips; shape of ``placeholder``."""
        clips = visuals.token_kinds() == VIDEO
        kinds = torch.where(clips, _CLIP_TYPE, _IMAGE_TYPE).to(placeholder.device)
        return torch.zeros_like(placeholder, dtype=torch.int64).masked_scatter(placeholder, kinds)

    def _grid_arguments(self, visuals: VisualInputs, shown: list[int]) -> dict[str, Any]:
        """Grids and seconds of the visuals ``shown``, under the library's names."""
        kinds = visuals.axis_kinds.tolist()
        found: dict[str, Any] = {}
        for clip, grid in ((False, "image_grid_thw"), (True, "video_grid_thw")):
            chosen = [index for index in shown if (kinds[index] == VIDEO) == clip]
            if not chosen:
                continue
            lines = []
            for index in chosen:
                depth, height, width = visuals.grids[index].tolist()
                lines += [[depth, height, width]] if clip else [[1, height, width]] * depth
            found[grid] = torch.tensor(lines, device=visuals.grids.device)
            if clip:
                thick = self.config.vision_config.temporal_patch_size
                found |= self._seconds([thick * float(visuals.spacing[index, 0]) for index in chosen])
        return found

    def _seconds(self, steps: list[float]) -> dict[str, Any]:
        return {"second_per_grid_ts": steps}

    def library_inputs(self, ids: Tensor, visuals: VisualInputs | None) -> dict[str, Any]:
        if visuals is None:
            return {"input_ids": ids}
        types = self._types(ids == self.placeholder_id, visuals)
        ids = torch.where(types == _CLIP_TYPE, self.config.video_token_id, ids)
        shown, rows, kinds = visuals.placements.tolist(), visuals.rows, visuals.axis_kinds.tolist()
        found = self._grid_arguments(visuals, shown)
        for name, clip in (("pixel_values", False), ("pixel_values_videos", True)):
            chosen = [rows[index] for index in shown if (kinds[index] == VIDEO) == clip]
            if chosen:
                found[name] = torch.cat(chosen)
        return {"input_ids": ids, "mm_token_type_ids": types, **found}

    def component_of(self, name: str) -> str:
        if name.startswith(("model.visual.merger", "model.visual.deepstack_merger")):
            return "projector"
        return "vision" if name.startswith("model.visual.") else "text"


class Qwen3VL(Qwen25VL):
    """transformers' Qwen3VLForConditionalGeneration: a clip is written frame by frame with its seconds."""

    name = "Qwen3-VL"

    def template_marks(self, tokenizer: Any) -> tuple[str, str | None]:
        # The seconds stand outside of the vision tokens, each frame between its own.
        return self.image_mark, f"<|vision_start|>{self.clip_mark}<|vision_end|>"

    def written(self, visual: PatchedVisual, tokenizer: Any) -> list[str]:
        if visual.axis_kind != VIDEO:
            return super().written(visual, tokenizer)
        patches, thick = visual.grid[0], int(self.config.vision_config.temporal_patch_size)
        each = self.image_mark * (visual.tokens // patches)
        seconds = [(index * thick + (thick - 1) / 2) * visual.spacing[0] for index in range(patches)]
        if any(math.isnan(second) for second in seconds):
            raise ValueError("a clip without times; give Video.times_s in seconds")
        return ["".join(f"<{second:.1f} seconds><|vision_start|>{each}<|vision_end|>" for second in seconds)]

    def _seconds(self, steps: list[float]) -> dict[str, Any]:
        return {}


def _joined(pieces: Any) -> Tensor:
    return pieces if isinstance(pieces, Tensor) else torch.cat(list(pieces))
