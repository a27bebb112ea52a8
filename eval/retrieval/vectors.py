"""Embeddings that are kept as they come: a killed run goes on, a changed text is embedded again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from medvlm.eval.rows import append_rows, drop_torn_line, read_rows

NAMES, NUMBERS = "embeddings.keys.jsonl", "embeddings.f32"


class VectorFile:
    """Vectors of one length by key, in two files that only grow: numbers first, then their keys.

    Args:
        folder: of one model; another model's vectors must not lie there.

    Raises:
        ValueError: the files do not belong together.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._keys, self._numbers = folder / NAMES, folder / NUMBERS
        drop_torn_line(self._keys)
        rows = read_rows(self._keys)
        sizes = {int(row["size"]) for row in rows}
        if len(sizes) > 1:
            raise ValueError(f"{self._keys} holds vectors of {sorted(sizes)} numbers: they are of two models")
        self.size = sizes.pop() if sizes else 0
        self.places = {str(row["key"]): place for place, row in enumerate(rows)}
        held = self._numbers.stat().st_size if self._numbers.exists() else 0
        wanted = len(rows) * self.size * 4
        if held < wanted or len(self.places) < len(rows):
            raise ValueError(f"{self._numbers} does not belong to {self._keys.name}; remove both and embed again")
        if held > wanted:  # numbers whose keys a killed run could not write any more
            with self._numbers.open("r+b") as file:
                file.truncate(wanted)

    def add(self, keys: Sequence[str], vectors: np.ndarray) -> None:
        """Append (N, size) finite vectors and wait until they are on the disk.

        Raises:
            ValueError: another length than before, or a number that is not finite.
        """
        if vectors.ndim != 2 or len(vectors) != len(keys) or (self.size and vectors.shape[1] != self.size):
            raise ValueError(f"{len(keys)} vectors of {self.size or 'any'} numbers expected, got {vectors.shape}")
        if not np.isfinite(vectors).all():
            raise ValueError("the model gave a vector with a number that is not finite")
        self.size = vectors.shape[1]
        with self._numbers.open("ab") as file:
            file.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
            file.flush()
            os.fsync(file.fileno())
        append_rows(self._keys, [{"key": key, "size": self.size} for key in keys])
        for key in keys:
            self.places[key] = len(self.places)

    def read(self, keys: Sequence[str]) -> np.ndarray:
        """(N, size) float32 of ``keys``, all of which are here."""
        held = np.fromfile(self._numbers, dtype="<f4").reshape(-1, self.size)
        return np.asarray(held[[self.places[key] for key in keys]])


def embedded(
    folder: Path, keys: Sequence[str], embed: Callable[[list[int]], np.ndarray], *, batch: int
) -> Iterator[tuple[int, int]]:
    """Embed what ``folder`` does not hold yet, ``batch`` at a time.

    Args:
        keys: of all that is needed; the same content has the same key and is embedded once.
        embed: places in ``keys`` -> their vectors.

    Yields:
        (how many are done, how many there are), after every batch.
    """
    store = VectorFile(folder)
    wanted: dict[str, int] = {}
    for place, key in enumerate(keys):
        if key not in store.places:
            wanted.setdefault(key, place)
    todo = list(wanted.values())
    for start in range(0, len(todo), batch):
        some = todo[start : start + batch]
        store.add([keys[place] for place in some], embed(some))
        yield min(start + batch, len(todo)), len(todo)
