"""Sample -> Rendered: reads visuals, lets the processor cut them, keeps the patches on disk when asked."""

from __future__ import annotations

import copy
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.feature_cache import FeatureCache, NamedVisual
from medvlm.data_recipes.packing import Length, length_of
from medvlm.data_recipes.patch_cache import PatchCache
from medvlm.data_recipes.readers.header_size import header_size
from medvlm.data_recipes.sample import Sample, Turn, VisualRef, chat, visuals_of
from medvlm.data_recipes.scaled_reading import read_for
from medvlm.model.loading import Processor
from medvlm.model.processing import AXIS_KIND, PatchedVisual, Rendered

_READING = 2
"""Grows when the same file, options and settings begin to give other patches, so that no old cache entry is found."""


class Renderer:
    """Renders samples of one data root with one processor; goes to other processes without what it remembers.

    Args:
        processor: saved with the checkpoint that is trained.
        root: folder that relative paths of visuals start from.
        cache: folder for patches, or None to read the files each time. Entries are named by the file's content hash
            (path, size and time of change when the manifest gives none), its reader options and the processor's visual
            settings: a changed setting never finds an old entry.
        memory_bytes: patches kept in memory, least recently used out first.
        cache_bytes: limit of the folder; None: none.
        room: None: samples are rendered with their answers. A number: as prompts, of which each leaves room for an
            answer of so many tokens.
    """

    def __init__(
        self,
        processor: Processor,
        root: Path,
        cache: Path | None = None,
        memory_bytes: int = 1 << 30,
        cache_bytes: int | None = None,
        room: int | None = None,
    ) -> None:
        self.processor, self.root, self.room = processor, root, room
        self.cache = None if cache is None else PatchCache(cache, cache_bytes)
        self.features: FeatureCache | None = None
        self.memory_bytes = memory_bytes
        self._forget()
        self._settings = json.dumps(processor.visual_settings(), sort_keys=True)

    def _forget(self) -> None:
        self._memory: OrderedDict[str, PatchedVisual] = OrderedDict()
        self._held = 0
        self._guard = threading.Lock()  # one thread measures the next window while another reads packs

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_memory", "_held", "_guard")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def sides(self, sample: Sample, shown: dict[str, PatchedVisual] | None = None) -> tuple[Rendered, ...]:
        """Every conversation that ``sample`` trains on: one, or chosen and rejected.

        Args:
            shown: visuals of the pack so far, by key; those of this sample are added. A visual that is in it is the
                same object, so that it is encoded once, whatever the memory of this renderer has let go.

        Raises:
            BadSample: a visual cannot be read or cut; names the sample.
        """
        known = {} if shown is None else shown

        def visual(ref: VisualRef) -> PatchedVisual:
            key = self._key(ref)
            if key not in known:
                known[key] = self._visual(key, ref)
            return known[key]

        return self._sides(sample, visual)

    def length(self, sample: Sample) -> Length:
        """What ``sides`` will cost, told from headers where they suffice and without pixels there.

        Raises:
            BadSample: a visual cannot be read or cut; names the sample.
        """
        outlines: dict[str, PatchedVisual] = {}

        def outline(ref: VisualRef) -> PatchedVisual:
            key = self._key(ref)
            if key not in outlines:
                told = None if key in self._memory else self._outline(ref)
                outlines[key] = self._visual(key, ref) if told is None else told
            return outlines[key]

        length = length_of(self._sides(sample, outline))
        if self.room is None:
            return length
        return replace(length, tokens=length.tokens + self.room, supervised=self.room)

    def render(self, turns: tuple[Turn, ...], add_generation_prompt: bool = False) -> Rendered:
        """One conversation with its visuals."""
        return self.processor.render(
            chat(turns), [self.visual(ref) for ref in visuals_of(turns)], add_generation_prompt
        )

    def visual(self, ref: VisualRef) -> PatchedVisual:
        """The patches of one visual, from memory, disk cache or file; the same object while it stays in memory."""
        return self._visual(self._key(ref), ref)

    def settings(self) -> str:
        """Whatever in the processor changes what a sample costs."""
        tokenizer = self.processor.tokenizer
        words = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
        prompts = [] if self.room is None else [{"prompts": self.room}]
        return json.dumps([self._settings, words, str(tokenizer.chat_template), *prompts])

    def _sides(self, sample: Sample, visual: Callable[[VisualRef], PatchedVisual]) -> tuple[Rendered, ...]:
        try:
            asks = self.room is not None
            return tuple(
                self.processor.render(chat(turns), [visual(ref) for ref in visuals_of(turns)], asks)
                for turns in ((sample.prompt(),) if asks else sample.sides())
            )
        except BadSample as bad:
            raise BadSample(bad.reason, where=bad.where, mend=bad.mend, sample_id=sample.sample_id) from bad

    def with_features(self, features: FeatureCache) -> Renderer:
        """A renderer that hands out features instead of patches where they are known, and names all visuals."""
        made = copy.copy(self)
        made.features = features
        return made

    def _visual(self, key: str, ref: VisualRef) -> PatchedVisual:
        if self.features is None:
            return self._patched(key, ref)
        known = self.features.get(key)
        return NamedVisual(key=key, **vars(self._patched(key, ref))) if known is None else known

    def _patched(self, key: str, ref: VisualRef) -> PatchedVisual:
        with self._guard:
            if key in self._memory:
                self._memory.move_to_end(key)
                return self._memory[key]
        visual = None if self.cache is None else self.cache.get(key)
        if visual is None:
            loaded = read_for(ref, self.root, self.processor)
            try:
                visual = self.processor.patch(loaded)
            except ValueError as error:
                raise BadSample(str(error), where=ref.path, mend="change the processor's budget") from error
            if self.cache is not None:
                self.cache.put(key, visual)
        with self._guard:
            if key not in self._memory:
                self._memory[key] = visual
                self._held += visual.patches.nbytes
            while self._held > self.memory_bytes and len(self._memory) > 1:
                _, oldest = self._memory.popitem(last=False)
                self._held -= oldest.patches.nbytes
            return self._memory.get(key, visual)

    def _outline(self, ref: VisualRef) -> PatchedVisual | None:
        """The visual with patches of no width: what tells its cost and nothing else; None when pixels must be seen."""
        size = header_size(ref, self.root)
        if size is None:
            return None
        try:
            cost = self.processor.cost(size, ref.kind)
        except ValueError as error:
            raise BadSample(str(error), where=ref.path, mend="change the processor's budget") from error
        if cost is None:
            return None
        patches, tokens = cost
        return PatchedVisual(
            patches=np.empty((patches, 0), np.float32),
            grid=(1, 1, patches),
            spacing=(np.nan, np.nan, np.nan),
            axis_kind=AXIS_KIND[ref.kind],
            kept=np.ones(tokens, bool),
        )

    def _key(self, ref: VisualRef) -> str:
        content = ref.sha256
        if content is None:
            path = self.root / ref.path
            state = path.stat() if path.exists() else None
            content = f"{path} {state.st_size} {state.st_mtime_ns}" if state else str(path)
        text = json.dumps([_READING, ref.kind, content, ref.options, self._settings], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
