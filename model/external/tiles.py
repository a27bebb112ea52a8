"""Families whose pictures are tiles of a fixed size: Gemma 3 (MedGemma), InternVL, LLaVA-OneVision.

A row of ``patches`` is one tile, flattened; the rows of a visual lie together.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medvlm.model.batch import IMAGE
from medvlm.model.external.family import (
    Cut,
    Encoded,
    Family,
    Pack,
    VisualInputs,
    blank_visual,
    is_clip,
    is_run,
)
from medvlm.model.external.pictures import Pictures
from medvlm.model.processing import PatchedVisual


def _side(size: Any) -> int:
    """The side of a square picture, however a config states it."""
    return int(size[0]) if isinstance(size, list | tuple) else int(size)


class _Tiles(Family):
    @property
    @abstractmethod
    def tokens_per_tile(self) -> int:
        """Placeholders of one tile."""

    def _tiles(self, rows: Tensor) -> Tensor:
        """(n, 3 * side * side) -> (n, 3, side, side)."""
        side = _side(self.config.vision_config.image_size)
        return rows.view(len(rows), 3, side, side)

    def blank(self, model: Any) -> VisualInputs:
        side = _side(self.config.vision_config.image_size)
        return blank_visual(torch.zeros(1, 3 * side * side, device=model.device), (1, 1, 1), self.tokens_per_tile)

    def sizes(self) -> dict[str, tuple[int, int]]:
        vision = self.config.vision_config
        hidden, layers = super().sizes()["vision"]
        # A row of patches is a whole tile.
        return super().sizes() | {
            "vision": (hidden * (_side(vision.image_size) // _side(vision.patch_size)) ** 2, layers)
        }

    def _cut(self, tiles: np.ndarray) -> Cut:
        rows = np.asarray(tiles, dtype=np.float32).reshape(len(tiles), -1)
        return Cut(patches=rows, grid=(len(rows), 1, 1), tokens=len(rows) * self.tokens_per_tile)

    def component_of(self, name: str) -> str:
        if name.startswith("model.vision_tower."):
            return "vision"
        return "projector" if name.startswith(("model.multi_modal_projector.", "model.image_newline")) else "text"

    def encode(self, model: Any, visuals: VisualInputs) -> Encoded:
        output = model.model.get_image_features(self._tiles(visuals.patches), return_dict=True)
        counts = visuals.visual_tokens.tolist()
        return Encoded(features=list(output.pooler_output.flatten(0, 1).split(counts)), deep=[])

    def library_inputs(self, ids: Tensor, visuals: VisualInputs | None) -> dict[str, Any]:
        if visuals is None:
            return {"input_ids": ids}
        rows = visuals.rows
        return {
            "input_ids": ids,
            "pixel_values": self._tiles(torch.cat([rows[i] for i in visuals.placements.tolist()])),
        }


class Gemma3(_Tiles):
    """Gemma 3 technical report, arXiv:2503.19786; MedGemma is one. An image is one tile; pan and scan stays off."""

    name = "Gemma 3"
    packs = False
    pads_because = "its images are attended to in both directions, so samples cannot lie end to end"
    has_clips = False

    @property
    def tokens_per_tile(self) -> int:
        return int(self.config.mm_tokens_per_image)

    def template_marks(self, tokenizer: Any) -> tuple[str, str | None]:
        return tokenizer.convert_ids_to_tokens(self.config.boi_token_index), None

    def cut(self, pictures: Pictures, image_processor: Any, max_pixels: int | None) -> Cut:
        made = image_processor(images=list(pictures.rgb), do_pan_and_scan=False, return_tensors="np")
        return self._cut(made["pixel_values"])

    def written(self, visual: PatchedVisual, tokenizer: Any) -> list[str]:
        begin, image, end = tokenizer.convert_ids_to_tokens(
            [self.config.boi_token_index, self.placeholder_id, self.config.eoi_token_index]
        )
        return [f"\n\n{begin}{image * self.tokens_per_tile}{end}\n\n"] * len(visual.patches)

    def decode(self, model: Any, pack: Pack) -> Tensor:
        """The samples one below the other, padded on the right, and the hidden states laid back."""
        lengths = pack.cu_seqlens.diff().tolist()
        embeds = pack.embeds[0].split(lengths)
        types = pack.placeholder[0].long().split(lengths)
        padded = torch.nn.utils.rnn.pad_sequence(list(embeds), batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(t) for t in types], batch_first=True)
        output = model.model(
            inputs_embeds=padded,
            attention_mask=mask,
            token_type_ids=torch.nn.utils.rnn.pad_sequence(list(types), batch_first=True),
            use_cache=False,
        )
        return output.last_hidden_state[mask.bool()][None]

    def library_inputs(self, ids: Tensor, visuals: VisualInputs | None) -> dict[str, Any]:
        return super().library_inputs(ids, visuals) | {"token_type_ids": (ids == self.placeholder_id).long()}


class InternVL(_Tiles):
    """InternVL3, arXiv:2504.10479, as transformers has it: an image is up to twelve tiles and a thumbnail."""

    name = "InternVL"

    @property
    def tokens_per_tile(self) -> int:
        return int(self.config.image_seq_length)

    def template_marks(self, tokenizer: Any) -> tuple[str, str | None]:
        return self._context(tokenizer), "<video>"

    def _context(self, tokenizer: Any) -> str:
        return tokenizer.convert_ids_to_tokens(self.placeholder_id)

    def cut(self, pictures: Pictures, image_processor: Any, max_pixels: int | None) -> Cut:
        whole = pictures.shown == "image"
        made = image_processor(images=list(pictures.rgb), crop_to_patches=whole, return_tensors="np")
        return self._cut(made["pixel_values"])

    def written(self, visual: PatchedVisual, tokenizer: Any) -> list[str]:
        tile = self._context(tokenizer) * self.tokens_per_tile
        if visual.axis_kind == IMAGE:
            return [f"<img>{tile * len(visual.patches)}</img>"]
        pictures = [f"<img>{tile}</img>"] * len(visual.patches)
        if is_run(visual, self):
            return pictures
        return ["\n".join(f"Frame{number}: {picture}" for number, picture in enumerate(pictures, 1))]


class LlavaOneVision(_Tiles):
    """LLaVA-OneVision, arXiv:2408.03326. One image alone is cut into tiles at its best resolution ("anyres"); several
    images are one tile each; a frame of a clip is one tile, pooled by two along each side.

    After the pixels a row holds the height and width of the picture that it was cut from: the model needs them to take
    the padding out again. The last row of an image is the tile that stands for it among several.
    """

    name = "LLaVA-OneVision"

    @property
    def _patches_per_side(self) -> int:
        vision = self.config.vision_config
        return _side(vision.image_size) // _side(vision.patch_size)

    @property
    def tokens_per_tile(self) -> int:
        return self._patches_per_side**2 + 1

    def template_marks(self, tokenizer: Any) -> tuple[str, str | None]:
        image, clip = tokenizer.convert_ids_to_tokens([self.config.image_token_id, self.config.video_token_id])
        return image, clip

    def cut(self, pictures: Pictures, image_processor: Any, max_pixels: int | None) -> Cut:
        frames = list(pictures.rgb)
        if pictures.shown == "clip":
            frames = [self._stretched(frame, image_processor) for frame in frames]
        single = image_processor(images=[[*frames, frames[-1]]], do_pad=True, return_tensors="np")["pixel_values"]
        rows = np.asarray(single, dtype=np.float32)[: len(frames), 0].reshape(len(frames), -1)
        if pictures.shown == "clip":
            pooled = math.ceil(self._patches_per_side / 2) ** 2
            return self._with_size(rows, pictures, len(frames) * pooled + 1)
        if pictures.shown == "slices":
            return self._with_size(rows, pictures, len(frames) * self.tokens_per_tile)
        tiles = np.asarray(image_processor(images=[frames], return_tensors="np")["pixel_values"][0], dtype=np.float32)
        both = np.concatenate([tiles.reshape(len(tiles), -1), rows])
        return self._with_size(both, pictures, self._anyres_tokens(*pictures.rgb.shape[1:3]))

    @staticmethod
    def _stretched(frame: np.ndarray, image_processor: Any) -> np.ndarray:
        """A frame of a clip fills its tile, as the library's video processor has it; images keep their shape."""
        from PIL import Image as Pil

        size = image_processor.size
        target = (size["width"], size["height"])
        return np.asarray(Pil.fromarray(frame).resize(target, resample=Pil.Resampling(int(image_processor.resample))))

    @staticmethod
    def _with_size(rows: np.ndarray, pictures: Pictures, tokens: int) -> Cut:
        size = np.broadcast_to(np.asarray(pictures.rgb.shape[1:3], dtype=np.float32), (len(rows), 2))
        return Cut(patches=np.concatenate([rows, size], axis=1), grid=(len(rows), 1, 1), tokens=tokens)

    def _anyres_tokens(self, height: int, width: int) -> int:
        """Tokens of one image alone: the base tile, and its tiles without their padding, a newline after each row.

        Section 3 of LLaVA-OneVision; must count as transformers' ``pack_image_features`` packs.
        """
        from transformers.image_processing_utils import select_best_resolution

        side, tile = self._patches_per_side, _side(self.config.vision_config.image_size)
        best_height, best_width = select_best_resolution((height, width), self.config.image_grid_pinpoints)
        rows, columns = side * (best_height // tile), side * (best_width // tile)
        if width / height > columns / rows:
            rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
        most = int(self.config.vision_aspect_ratio.removeprefix("anyres_max_"))
        ratio = math.sqrt(rows * columns / (most * side**2))
        if ratio > 1.1:
            rows, columns = int(rows // ratio), int(columns // ratio)
        return side * side + rows * columns + rows

    def written(self, visual: PatchedVisual, tokenizer: Any) -> list[str]:
        mark = tokenizer.convert_ids_to_tokens(self.placeholder_id)
        if is_run(visual, self):
            return [mark * self.tokens_per_tile] * len(visual.patches)
        return [mark * visual.tokens]

    def alone_or_among(self, visual: PatchedVisual, pictures: int) -> PatchedVisual:
        if visual.axis_kind != IMAGE:
            return visual
        rows = visual.patches[:-1] if pictures == 1 else visual.patches[-1:]
        tokens = visual.tokens if pictures == 1 else self.tokens_per_tile
        return PatchedVisual(
            patches=rows,
            grid=(len(rows), 1, 1),
            spacing=visual.spacing,
            axis_kind=visual.axis_kind,
            kept=np.ones(tokens, dtype=bool),
        )

    def blank(self, model: Any) -> VisualInputs:
        side = _side(self.config.vision_config.image_size)
        rows = torch.zeros(1, 3 * side * side + 2, device=model.device)
        return blank_visual(rows, (1, 1, 1), self.tokens_per_tile)

    def in_one_call(self, visuals: VisualInputs) -> bool:
        """Clips of unlike length cannot be stacked."""
        clips = zip(visuals.grids[:, 0].tolist(), visuals.axis_kinds.tolist(), strict=True)
        return len({frames for frames, kind in clips if is_clip(kind, self)}) < 2

    def encode(self, model: Any, visuals: VisualInputs) -> Encoded:
        found: dict[int, Tensor] = {}
        rows, kinds = visuals.rows, visuals.axis_kinds.tolist()
        anyres = [i for i, row in enumerate(rows) if kinds[i] == IMAGE and len(row) > 1]
        clips = [i for i in range(len(rows)) if is_clip(kinds[i], self)]
        singles = [i for i in range(len(rows)) if i not in anyres and i not in clips]
        for index in clips:
            output = model.model.get_video_features(self._tiles(rows[index][:, :-2])[None], return_dict=True)
            found[index] = output.pooler_output.flatten(0, 1)
        if anyres:
            tiles, sizes = self._stacked([rows[i] for i in anyres])
            output = model.model.get_image_features(tiles, sizes, return_dict=True)
            found |= dict(zip(anyres, output.pooler_output, strict=True))
        if singles:
            joined = torch.cat([rows[i] for i in singles])
            # More than one image: the library then takes one tile of each. A lone one is given twice.
            doubled = joined if len(joined) > 1 else joined.repeat(2, 1)
            output = model.model.get_image_features(
                self._tiles(doubled[:, :-2])[:, None],
                doubled[:, -2:].long(),
                batch_num_images=torch.tensor([len(doubled)], device=doubled.device),
                return_dict=True,
            )
            images = iter(output.pooler_output)
            found |= {index: torch.cat([next(images) for _ in rows[index]]) for index in singles}
        return Encoded(features=[found[index] for index in range(len(rows))], deep=[])

    def _stacked(self, rows: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Tiles (images, most tiles, 3, side, side), padded with zeros, and sizes (images, 2) of whole pictures."""
        tiles = torch.nn.utils.rnn.pad_sequence([self._tiles(row[:, :-2]) for row in rows], batch_first=True)
        return tiles, torch.stack([row[0, -2:] for row in rows]).long()

    def library_inputs(self, ids: Tensor, visuals: VisualInputs | None) -> dict[str, Any]:
        if visuals is None:
            return {"input_ids": ids}
        placeholder = ids == self.placeholder_id
        rows, kinds = visuals.rows, visuals.axis_kinds.tolist()
        counts = visuals.visual_tokens.tolist()
        ids = ids.clone()
        images: list[Tensor] = []
        clips: list[Tensor] = []
        per_row: list[int] = []
        for number, shown in enumerate(visuals.shown_by_row(placeholder.sum(dim=1).tolist())):
            where, before, done = placeholder[number].nonzero().squeeze(1), len(images), 0
            for index in shown:
                if is_clip(kinds[index], self):
                    ids[number, where[done : done + counts[index]]] = self.config.video_token_id
                    clips.append(self._tiles(rows[index][:, :-2]))
                else:
                    images += [rows[index]] if kinds[index] == IMAGE else list(rows[index].split(1))
                done += counts[index]
            per_row.append(len(images) - before)
        found: dict[str, Any] = {"input_ids": ids}
        if images:
            tiles, sizes = self._stacked(images)
            held = [count for count in per_row if count]
            found |= {"pixel_values": tiles, "image_sizes": sizes, "batch_num_images": torch.tensor(held)}
        if clips:
            found["pixel_values_videos"] = torch.stack(clips)
        return found
