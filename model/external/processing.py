"""ExternalProcessor: visuals and chat -> what an existing vision-language model eats, under the names of our own."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig, BatchFeature, PretrainedConfig, PreTrainedTokenizerBase

from medvlm.model.batch import IMAGE, VIDEO, VOLUME
from medvlm.model.external.chat import ShownVisual, end_of_turn, tokenize_family_chat
from medvlm.model.external.families import family_of
from medvlm.model.external.family import is_clip, is_run
from medvlm.model.external.folder import copy_processor_files, load_image_processor, load_tokenizer, local_folder
from medvlm.model.external.pictures import pictures_of
from medvlm.model.external.settings import ExternalSettings, read_settings, write_settings
from medvlm.model.processing import PatchedVisual, Rendered, left_padded
from medvlm.model.visual import Kind, Visual, kind_of

_REMEMBERED = 8
"""Pictures in a second form: the samples that share one lie together in a pack."""


class ExternalProcessor:
    """Stands where MedVLMProcessor stands; windows are ours, resizing and normalising the family's.

    Args:
        config: of the model.
        tokenizer: with its own special tokens and chat template; nothing is added.
        image_processor: the family's, on Pillow.
        settings: how volumes are shown, windows, budgets.
        source: folder whose processor files a saved checkpoint gets.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: Any,
        settings: ExternalSettings | None = None,
        source: Path | None = None,
    ) -> None:
        self.config, self.tokenizer, self.image_processor = config, tokenizer, image_processor
        self.settings, self.source = settings or ExternalSettings(), source
        self.family = family_of(config)
        if self.family.fixed_size and self.settings.max_pixels:
            raise ValueError(f"pictures of {self.family.name} have a fixed size; remove max_pixels")
        if self.settings.volumes == "video" and not self.family.has_clips:
            raise ValueError(f"{self.family.name} has no path for clips; set volumes: slices")
        self.visual_token_id = self.family.placeholder_id
        self._end = end_of_turn(tokenizer)
        self._shown: OrderedDict[tuple[int, bool], tuple[PatchedVisual, PatchedVisual]] = OrderedDict()

    @classmethod
    def from_pretrained(cls, source: str | Path, **changes: Any) -> ExternalProcessor:
        """From a checkpoint folder or hub id; ``changes`` are fields of ExternalSettings over the saved ones."""
        folder = local_folder(source)
        return cls(
            AutoConfig.from_pretrained(folder),
            load_tokenizer(folder),
            load_image_processor(folder),
            read_settings(folder, changes),
            folder,
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """The library's files as they came, and ours beside them.

        Raises:
            ValueError: the processor was not loaded from a folder.
        """
        if self.source is None:
            raise ValueError("this processor was made from parts; save the library's own processor to a folder first")
        copy_processor_files(self.source, Path(folder))
        write_settings(Path(folder), self.settings)

    def visual_settings(self) -> dict[str, Any]:
        """All that decides what ``patch`` makes of a visual, JSON-ready: the name of a cache entry."""
        return {
            "model_type": self.config.model_type,
            "vision": self.config.vision_config.to_dict(),
            "image_processor": self.image_processor.to_dict(),
            **asdict(self.settings),
        }

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an assistant's turn: what the template writes, and the tokenizer's end of text."""
        eos = self.tokenizer.eos_token_id
        return frozenset({self._end} if eos is None else {self._end, int(eos)})

    def patch(self, visual: Visual) -> PatchedVisual:
        """Window one visual, choose its slices, and let the family's image processor cut it."""
        kind = kind_of(visual)
        pictures = pictures_of(
            visual,
            self.settings,
            has_clips=self.family.has_clips,
            frames_multiple=self.family.frames_multiple,
        )
        cut = self.family.cut(pictures, self.image_processor, self.settings.max_pixels.get(kind))
        axis_kind = IMAGE if pictures.shown == "image" else VOLUME if pictures.shown == "slices" else VIDEO
        if kind == "video" and pictures.shown == "slices":
            axis_kind = VIDEO
        return PatchedVisual(
            patches=cut.patches,
            grid=cut.grid,
            spacing=pictures.spacing,
            axis_kind=axis_kind,
            kept=np.ones(cut.tokens, dtype=bool),
        )

    def cost(self, size: tuple[int, int, int], kind: Kind) -> tuple[int, int] | None:
        """None: what a visual costs is known when the family's own image processor has cut it."""
        del size, kind
        return None

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        visuals: Sequence[PatchedVisual],
        add_generation_prompt: bool = False,
    ) -> Rendered:
        """Tokenize ``messages`` around visuals that were already cut, by the family's own chat template."""
        images = sum(self._pictures(visual) for visual in visuals if not is_clip(visual.axis_kind, self.family))
        seen = [self._as_seen(visual, images) for visual in visuals]
        shown = [
            ShownVisual(
                clip=is_clip(visual.axis_kind, self.family),
                written=self.family.written(visual, self.tokenizer),
                captions=self._captions(visual),
            )
            for visual in seen
        ]
        chat = tokenize_family_chat(
            self.tokenizer, messages, shown, self.family.template_marks(self.tokenizer), add_generation_prompt
        )
        return Rendered(
            tokens=np.asarray(chat.tokens, dtype=np.int64),
            supervised=np.asarray(chat.supervised, dtype=bool),
            positions=np.arange(len(chat.tokens)),
            visuals=tuple(seen[index] for index in chat.order),
        )

    def _pictures(self, visual: PatchedVisual) -> int:
        return visual.grid[0] if is_run(visual, self.family) else 1

    def _as_seen(self, visual: PatchedVisual, images: int) -> PatchedVisual:
        """The same object for the same visual, so that what two samples share is encoded once."""
        key = (id(visual), images == 1)
        if key not in self._shown:
            seen = self.family.alone_or_among(visual, images)
            if seen is visual:
                return visual
            self._shown[key] = (visual, seen)
            if len(self._shown) > _REMEMBERED:
                self._shown.popitem(last=False)
        return self._shown[key][1]

    def _captions(self, visual: PatchedVisual) -> list[str]:
        """Where each picture of a run lies: millimetres from the lower edge of the volume, or seconds."""
        if not is_run(visual, self.family):
            return []
        step, count = visual.spacing[0], visual.grid[0]
        if visual.axis_kind == VIDEO:
            return [f"t = {number * step:.1f} s" for number in range(count)]
        if math.isnan(step):
            return [f"slice {number + 1} of {count}" for number in range(count)]
        return [f"z = {(number + 0.5) * step:.1f} mm" for number in range(count)]

    def __call__(
        self,
        messages: Sequence[Sequence[dict[str, Any]]],
        visuals: Sequence[Sequence[Visual]] | None = None,
        add_generation_prompt: bool = True,
        **_: Any,
    ) -> BatchFeature:
        """A left-padded batch for ``generate``; arguments and result as of MedVLMProcessor."""
        rows = visuals if visuals is not None else [[] for _ in messages]
        rendered = [
            self.render(conversation, [self.patch(v) for v in row], add_generation_prompt)
            for conversation, row in zip(messages, rows, strict=True)
        ]
        pad = self.tokenizer.pad_token_id
        return left_padded(rendered, self._end if pad is None else pad)
