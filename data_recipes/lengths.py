"""What each sample costs, measured when it is first needed, and kept in a file that processes share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.packing import FIELDS, Length, Limits
from medvlm.data_recipes.rows import Joined
from medvlm.data_recipes.sample import Sample

_MOST = np.iinfo(np.int32).max - 1


class Lengths:
    """Cost of every sample of a training set, or why it cannot be used.

    Measuring happens in windows (see PackPlan), never for a whole set before the first step. What was measured lies in
    a file of 24 bytes a sample, mapped into memory by all ranks of a machine: each begins with another part of a window
    and passes over what others have written meanwhile, so that work is shared without a word between them.

    Args:
        rows: the samples.
        measure: cost of one sample; raises BadSample.
        accept: called with a sample and its number before it is measured; raises BadSample when this stage must not
            train on it.
        limits: of a pack; what alone is over one of them is refused. None: there are none.
        folder: where the file lies; None keeps the numbers in memory.
        settings: whatever changes a cost: settings of the processor, tokenizer.
        root: where relative paths of visuals start from: other files may have other costs.
    """

    def __init__(
        self,
        rows: Joined,
        measure: Callable[[Sample], Length],
        *,
        accept: Callable[[Sample, int], None] = lambda row, index: None,
        limits: Limits | None = None,
        folder: Path | None = None,
        settings: str = "",
        root: Path | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.rows, self._measure, self._accept, self._limits = rows, measure, accept, limits
        self.rank, self.world_size, self.settings = rank, world_size, settings
        self.refused: dict[int, BadSample] = {}
        if folder is None:
            self._table = np.zeros((len(rows), len(FIELDS)), np.int32)
        else:
            place = "" if root is None else root.resolve()
            name = hashlib.sha256(f"{rows.fingerprint} {settings} {place} {FIELDS}".encode()).hexdigest()[:32]
            self._table = _shared(folder / f"{name}.lengths", len(rows))

    def of(
        self, indices: Sequence[int] | np.ndarray, progress: Callable[[int, int], None] | None = None
    ) -> dict[int, Length]:
        """Costs of those of ``indices`` that can be used; ``refused`` says why the others cannot.

        Args:
            progress: called with (done, total) while samples are measured.
        """
        usable, sizes = self.columns(np.unique(np.asarray(indices, np.int64)), progress)
        rows = zip(*(sizes[name].tolist() for name in FIELDS), strict=True)
        return {
            index: Length(**dict(zip(FIELDS, row, strict=True)))
            for index, row in zip(usable.tolist(), rows, strict=True)
        }

    def columns(
        self, indices: np.ndarray, progress: Callable[[int, int], None] | None = None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Those of ``indices`` that can be used, in their order, and the columns of their costs by name.

        Args:
            progress: called with (done, total) while samples are measured.
        """
        self._measure_all(np.unique(indices), progress)
        known = indices
        if self.refused:
            # A copy: while one thread packs a window, another asks what the packs before it cost.
            known = indices[~np.isin(indices, np.array(list(self.refused), np.int64))]
        sizes = dict(zip(FIELDS, (self._table[known] - 1).astype(np.int64).T, strict=True))
        if self._limits is None:
            return known, sizes
        over = self._limits.over(sizes)
        for place in np.flatnonzero(over).tolist():
            self._refuse(int(known[place]), Length(**{name: int(sizes[name][place]) for name in FIELDS}), self._limits)
        return known[~over], {name: column[~over] for name, column in sizes.items()}

    def _measure_all(self, wanted: np.ndarray, progress: Callable[[int, int], None] | None) -> None:
        unknown = [int(i) for i in wanted[(self._table[wanted] == 0).any(axis=1)] if int(i) not in self.refused]
        # This rank's part first, then what the others may not have come to.
        unknown = [
            i
            for turn in range(self.world_size)
            for i in unknown[(self.rank + turn) % self.world_size :: self.world_size]
        ]
        for done, index in enumerate(unknown, start=1):
            if (self._table[index] == 0).any():
                self._find_out(index)
            if progress is not None:
                progress(done, len(unknown))

    def _refuse(self, index: int, length: Length, limits: Limits) -> None:
        try:
            limits.check(length, where=f"sample number {index}")
        except BadSample as bad:
            self.refused[index] = BadSample(bad.reason, where=self._where(index), mend=bad.mend)

    def _find_out(self, index: int) -> None:
        row = self.rows.row(index)
        try:
            if isinstance(row, BadSample):
                raise row
            self._accept(row, index)
            # One more than each number: a reader that sees a part of a row sees a zero, and measures again.
            self._table[index] = np.minimum(np.array(astuple(self._measure(row)), np.int64), _MOST) + 1
        except BadSample as bad:
            self.refused[index] = bad.bare()

    def _where(self, index: int) -> str:
        row = self.rows.row(index)
        return row.where if isinstance(row, BadSample) else row.sample_id


def _shared(path: Path, rows: int) -> np.ndarray:
    """A table in a file, zero where nothing is known, made by whoever comes first and mapped by all who come.

    Raises:
        OSError: there is no room for it; without its room, a page of it that is written would end the process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    size = rows * len(FIELDS) * np.dtype(np.int32).itemsize
    if not rows:
        return np.zeros((0, len(FIELDS)), np.int32)
    if path.exists() and path.stat().st_size != size:
        path.unlink(missing_ok=True)  # cut short by a full disk or a copy: what it told is measured again
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
            os.link(temporary, path)
        except FileExistsError:
            pass  # another process was first
        finally:
            temporary.unlink(missing_ok=True)
    return np.memmap(path, np.int32, mode="r+", shape=(rows, len(FIELDS)))
