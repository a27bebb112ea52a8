"""Sample -> Rendered: reads visuals, lets the processor cut them, keeps the patches on disk when asked."""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.sample import Sample, Turn, VisualRef, chat, visuals_of
from medvlm.model.loading import Processor
from medvlm.model.processing import PatchedVisual, Rendered


class Renderer:
    """Renders samples of one data root with one processor.

    Args:
        processor: saved with the checkpoint that is trained.
        root: folder that relative paths of visuals start from.
        cache: folder for patches, or None to read the files each time. Entries are named by the file's content hash
            (path, size and time of change when the manifest gives none), its reader options and the processor's visual
            settings: a changed setting never finds an old entry.
        memory_bytes: patches kept in memory, least recently used out first.
    """

    def __init__(
        self, processor: Processor, root: Path, cache: Path | None = None, memory_bytes: int = 1 << 30
    ) -> None:
        self.processor, self.root, self.cache = processor, root, cache
        self._memory: OrderedDict[str, PatchedVisual] = OrderedDict()
        self._left = memory_bytes
        self._settings = json.dumps(processor.visual_settings(), sort_keys=True)
        if cache is not None:
            cache.mkdir(parents=True, exist_ok=True)

    def sides(self, sample: Sample) -> tuple[Rendered, ...]:
        """Every conversation that ``sample`` trains on: one, or chosen and rejected.

        Raises:
            BadSample: a visual cannot be read or cut; names the sample.
        """
        try:
            return tuple(self.render(turns) for turns in sample.sides())
        except BadSample as bad:
            raise BadSample(bad.reason, where=bad.where, mend=bad.mend, sample_id=sample.sample_id) from bad

    def render(self, turns: tuple[Turn, ...], add_generation_prompt: bool = False) -> Rendered:
        """One conversation with its visuals."""
        return self.processor.render(
            chat(turns), [self.visual(ref) for ref in visuals_of(turns)], add_generation_prompt
        )

    def visual(self, ref: VisualRef) -> PatchedVisual:
        """The patches of one visual, from memory, disk cache or file; the same object while it stays in memory."""
        key = self._key(ref)
        if key in self._memory:
            self._memory.move_to_end(key)
            return self._memory[key]
        visual = self._from_disk(key)
        if visual is None:
            loaded = read(ref, self.root)
            try:
                visual = self.processor.patch(loaded)
            except ValueError as error:
                raise BadSample(str(error), where=ref.path, mend="change the processor's budget") from error
            self._to_disk(key, visual)
        self._memory[key] = visual
        self._left -= visual.patches.nbytes
        while self._left < 0 and len(self._memory) > 1:
            _, oldest = self._memory.popitem(last=False)
            self._left += oldest.patches.nbytes
        return visual

    def _key(self, ref: VisualRef) -> str:
        content = ref.sha256
        if content is None:
            path = self.root / ref.path
            state = path.stat() if path.exists() else None
            content = f"{path} {state.st_size} {state.st_mtime_ns}" if state else str(path)
        text = json.dumps([ref.kind, content, ref.options, self._settings], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _from_disk(self, key: str) -> PatchedVisual | None:
        path = self.cache / f"{key}.npz" if self.cache is not None else None
        if path is None or not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as stored:
            return PatchedVisual(
                patches=stored["patches"],
                grid=tuple(stored["grid"].tolist()),
                spacing=tuple(stored["spacing"].tolist()),
                axis_kind=int(stored["axis_kind"]),
                kept=stored["kept"],
            )

    def _to_disk(self, key: str, visual: PatchedVisual) -> None:
        if self.cache is None:
            return
        temporary = self.cache / f".{key}.{os.getpid()}.tmp"
        with temporary.open("wb") as file:
            np.savez(
                file,
                patches=visual.patches,
                grid=visual.grid,
                spacing=visual.spacing,
                axis_kind=visual.axis_kind,
                kept=visual.kept,
            )
        # A cache entry may be lost but never half seen: rename without fsync is enough.
        temporary.rename(self.cache / f"{key}.npz")
