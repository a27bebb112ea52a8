"""Patches of visuals on disk, named by what they were made from, within a limit of size."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np

from medvlm.model.processing import PatchedVisual

_KEPT_AFTER_EVICTION = 0.9


class PatchCache:
    """A folder of decoded and resampled visuals that several processes use at once.

    An entry may be lost but is never half seen: it is written under another name and renamed. When the folder grows
    over its limit, what was not used for longest goes first.

    Args:
        folder: made when it is not there.
        limit_bytes: None: no limit.
    """

    def __init__(self, folder: Path, limit_bytes: int | None = None) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        folder.mkdir(parents=True, exist_ok=True)
        # Only an estimate between two counts: other processes write too.
        self._bytes = sum(size for _, size, _ in self._entries()) if limit_bytes is not None else 0

    def get(self, key: str) -> PatchedVisual | None:
        """The visual of ``key``; None when it is not there."""
        path = self.folder / f"{key}.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                visual = PatchedVisual(
                    patches=stored["patches"],
                    grid=tuple(stored["grid"].tolist()),
                    spacing=tuple(stored["spacing"].tolist()),
                    axis_kind=int(stored["axis_kind"]),
                    kept=stored["kept"],
                )
            if self.limit_bytes is not None:
                os.utime(path)  # the time of use; file systems are often mounted without their own
        except FileNotFoundError:  # never there, or evicted by another process meanwhile
            return None
        return visual

    def put(self, key: str, visual: PatchedVisual) -> None:
        """Keep ``visual``; over the limit the oldest entries go."""
        temporary = self.folder / f".{key}.{os.getpid()}.{threading.get_ident()}.tmp"
        with temporary.open("wb") as file:
            np.savez(
                file,
                patches=visual.patches,
                grid=visual.grid,
                spacing=visual.spacing,
                axis_kind=visual.axis_kind,
                kept=visual.kept,
            )
            size = file.tell()
        # A cache entry may be lost but never half seen: rename without fsync is enough.
        temporary.rename(self.folder / f"{key}.npz")
        if self.limit_bytes is not None:
            self._bytes += size
            if self._bytes > self.limit_bytes:
                self._evict(self.limit_bytes)

    def _entries(self) -> list[tuple[float, int, str]]:
        """(time of last use, bytes, path) of every entry."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(".npz"):
                    try:
                        state = entry.stat()
                    except FileNotFoundError:  # evicted by another process meanwhile
                        continue
                    found.append((state.st_mtime, state.st_size, entry.path))
        return found

    def _evict(self, limit: int) -> None:
        entries = sorted(self._entries())
        self._bytes = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if self._bytes <= limit * _KEPT_AFTER_EVICTION:
                return
            Path(path).unlink(missing_ok=True)
            self._bytes -= size
