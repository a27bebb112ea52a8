"""Rows of a training set, read where they lie: an index of offsets is all that memory holds."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Sample, from_line

_CHUNK = 1 << 24


class Rows(Protocol):
    """Samples by number: a manifest, a set of shards, or several of them end to end."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what the rows say: what an exact resume needs to be the same."""

    def __len__(self) -> int: ...

    def row(self, index: int) -> Sample | BadSample:
        """Row ``index``, or why it cannot be used."""


class ManifestRows:
    """A JSONL manifest of any length; 12 bytes a row stay in memory.

    The file is read once from end to end, for the places of its lines and its SHA-256; after that each row is one read
    of its bytes. It goes to other processes as its index, and opens the file there.

    Raises:
        BadSample: no such file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise BadSample(
                "no such manifest", where=str(path), mend="check its path (in a training: data.root and the mixture)"
            )
        self._starts, self._sizes, self._lines, self.fingerprint, self._bytes = _index(self.path)
        self._file: int | None = None

    def __len__(self) -> int:
        return len(self._starts)

    def where(self, index: int) -> str:
        """ "path:line" of row ``index``, as a person counts lines."""
        return f"{self.path}:{int(self._lines[index]) if self._lines is not None else index + 1}"

    def row(self, index: int) -> Sample | BadSample:
        """Row ``index`` (blank lines are no rows), checked as ``sample.from_line`` does."""
        where = self.where(index)
        if self._file is None:
            file = os.open(self.path, os.O_RDONLY)
            found = os.fstat(file).st_size
            if found != self._bytes:
                os.close(file)
                return BadSample(
                    f"the manifest had {self._bytes} bytes and has {found} now",
                    where=where,
                    mend="do not change a manifest that is being read; start again",
                )
            self._file = file
        raw = os.pread(self._file, int(self._sizes[index]), int(self._starts[index]))
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            return BadSample(f"not UTF-8 at byte {error.start}", where=where, mend="save the file as UTF-8")
        return from_line(line, where=where)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            os.close(self._file)  # type: ignore[arg-type]


def _index(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, str, int]:
    """Starts and sizes in bytes of the lines that are not blank, their numbers when some are, SHA-256, and length."""
    digest, ends, at = hashlib.sha256(), [], 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            ends.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + at)
            at += len(chunk)
    stops = np.concatenate([*ends, np.array([at], np.int64)]) if at else np.zeros(0, np.int64)
    del ends
    starts = np.zeros_like(stops)
    np.add(stops[:-1], 1, out=starts[1:])
    sizes = np.subtract(stops, starts, out=stops).astype(np.int32)
    del stops
    written = sizes > 1
    single = np.flatnonzero(sizes == 1)
    if len(single):  # the carriage return of a blank line, or something that is no row and must say so
        with path.open("rb") as file:
            for line in single.tolist():
                file.seek(int(starts[line]))
                written[line] = not file.read(1).isspace()
    if written[:-1].all():
        count = int(written.sum())
        return starts[:count], sizes[:count], None, digest.hexdigest(), at
    return starts[written], sizes[written], np.flatnonzero(written) + 1, digest.hexdigest(), at


class ListRows:
    """Samples that are in memory already, such as a hand-made few."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = tuple(samples)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(sample.sample_id for sample in self.samples).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.samples)

    def row(self, index: int) -> Sample | BadSample:
        return self.samples[index]


class Joined:
    """Several sources laid end to end."""

    def __init__(self, sources: Sequence[Rows]) -> None:
        self.sources = tuple(sources)
        self._ends = list(accumulate(len(source) for source in self.sources))

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(" ".join(source.fingerprint for source in self.sources).encode()).hexdigest()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def place(self, index: int) -> tuple[int, int]:
        """(source, row in it) of ``index``."""
        source = bisect_right(self._ends, index)
        return source, index - (self._ends[source - 1] if source else 0)

    def row(self, index: int) -> Sample | BadSample:
        source, row = self.place(index)
        return self.sources[source].row(row)
