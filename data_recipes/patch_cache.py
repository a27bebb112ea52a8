"""Patches of visuals, and other arrays, on disk: named by what they were made from, within a limit of size."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from medvlm.model.processing import PatchedVisual

_ENDING = ".safetensors"
_KEPT_AFTER_EVICTION = 0.9
_ABANDONED_S = 3600.0
"""Age of an unfinished entry whose writer was killed: writing takes less than a second."""


class ArrayCache:
    """A folder of named groups of arrays that several processes use at once.

    An entry may be lost but is never half seen: it is written under another name and renamed, and one that a power cut
    has damaged is not there. When the folder grows over its limit, what was not used for longest goes first. All
    processes count its size in one file.

    Args:
        folder: made when it is not there.
        limit_bytes: None: no limit.
        summed: the arrays whose bits are summed, so that one that has changed on disk is told.
    """

    def __init__(self, folder: Path, limit_bytes: int | None, summed: tuple[str, ...]) -> None:
        self.folder, self.limit_bytes, self.summed = folder, limit_bytes, summed
        folder.mkdir(parents=True, exist_ok=True)
        if limit_bytes is not None:
            with self._counted() as counter:
                self._evict(counter, limit_bytes)

    def load(self, key: str) -> dict[str, np.ndarray] | None:
        """The arrays of ``key``; None when they are not there."""
        path = self.folder / f"{key}{_ENDING}"
        try:
            stored = load_file(path)
            if _sum_of_bits(*(stored[name] for name in self.summed)) != stored["sum_of_bits"][0]:
                return None  # a bit has changed on disk: it is made again
            if self.limit_bytes is not None:
                os.utime(path)  # the time of use; file systems are often mounted without their own
        except FileNotFoundError:  # never there, or evicted by another process meanwhile
            return None
        except (SafetensorError, KeyError):  # torn by a power cut: it is made again
            return None
        return stored

    def store(self, key: str, arrays: dict[str, np.ndarray]) -> None:
        """Keep ``arrays``; over the limit the oldest entries go."""
        temporary = self.folder / f".{key}.{os.getpid()}.{threading.get_ident()}.tmp"
        total_bits = _sum_of_bits(*(arrays[name] for name in self.summed))
        try:
            with temporary.open("wb") as file:
                # One read of plain bytes and a sum over them: twice as fast as an .npz, which is checked by a CRC.
                file.write(save({**arrays, "sum_of_bits": np.array([total_bits], np.uint64)}))
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            temporary.rename(self.folder / f"{key}{_ENDING}")
        finally:
            temporary.unlink(missing_ok=True)
        if self.limit_bytes is not None:
            with self._counted() as counter:
                total = _number(counter) + size
                _write_number(counter, total)
                if total > self.limit_bytes:
                    self._evict(counter, self.limit_bytes)

    @contextmanager
    def _counted(self) -> Iterator[int]:
        """The file of the folder's size, open, and of this process alone meanwhile."""
        counter = os.open(self.folder / ".bytes", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(counter, fcntl.LOCK_EX)
            yield counter
        finally:
            os.close(counter)  # which unlocks it

    def _entries(self) -> list[tuple[float, int, str]]:
        """(time of last use, bytes, path) of every entry; what killed processes have left unfinished is removed."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if not entry.name.endswith((_ENDING, ".tmp")):
                    continue
                try:
                    state = entry.stat()
                except FileNotFoundError:  # renamed meanwhile
                    continue
                if entry.name.endswith(_ENDING):
                    found.append((state.st_mtime, state.st_size, entry.path))
                elif time.time() - state.st_mtime > _ABANDONED_S:
                    Path(entry.path).unlink(missing_ok=True)
        return found

    def _evict(self, counter: int, limit: int) -> None:
        """Count the folder, and when it is over ``limit`` remove what was not used for longest."""
        entries = sorted(self._entries())
        total = sum(size for _, size, _ in entries)
        if total > limit:
            for _, size, path in entries:
                if total <= limit * _KEPT_AFTER_EVICTION:
                    break
                Path(path).unlink(missing_ok=True)
                total -= size
        _write_number(counter, total)


class PatchCache(ArrayCache):
    """Decoded and resampled visuals; see ``ArrayCache``."""

    def __init__(self, folder: Path, limit_bytes: int | None = None) -> None:
        super().__init__(folder, limit_bytes, summed=("patches", "kept"))

    def get(self, key: str) -> PatchedVisual | None:
        """The visual of ``key``; None when it is not there."""
        stored = self.load(key)
        return None if stored is None else PatchedVisual(patches=stored["patches"], **outline_of(stored))

    def put(self, key: str, visual: PatchedVisual) -> None:
        """Keep ``visual``."""
        self.store(key, {"patches": np.ascontiguousarray(visual.patches), **outline_arrays(visual)})


def outline_arrays(visual: PatchedVisual) -> dict[str, np.ndarray]:
    """All of ``visual`` but its patches."""
    return {
        "grid": np.array(visual.grid, np.int64),
        "spacing": np.array(visual.spacing, np.float64),
        "axis_kind": np.array([visual.axis_kind], np.int64),
        "kept": visual.kept,
    }


def outline_of(stored: dict[str, np.ndarray]) -> dict[str, Any]:
    """The fields of a PatchedVisual that ``outline_arrays`` wrote."""
    return {
        "grid": tuple(stored["grid"].tolist()),
        "spacing": tuple(stored["spacing"].tolist()),
        "axis_kind": int(stored["axis_kind"][0]),
        "kept": stored["kept"],
    }


def _sum_of_bits(*arrays: np.ndarray) -> int:
    """Of the bytes read as 64-bit integers, modulo 2**64: any one changed bit changes it, and it costs one read."""
    total = 0
    for array in arrays:
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        whole = len(data) // 8 * 8
        total += int(data[:whole].view(np.uint64).sum()) + int(data[whole:].sum(dtype=np.uint64))
    return total % 2**64


def _number(file: int) -> int:
    written = os.pread(file, 8, 0)
    return int.from_bytes(written, "little")


def _write_number(file: int, number: int) -> None:
    os.pwrite(file, number.to_bytes(8, "little"), 0)
