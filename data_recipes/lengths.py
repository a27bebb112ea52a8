"""What each sample costs, measured when it is first needed, and kept in a file that processes share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.packing import Length
from medvlm.data_recipes.rows import Joined
from medvlm.data_recipes.sample import Sample

_FIELDS = 5


class Lengths:
    """Cost of every sample of a training set, or why it cannot be used.

    Measuring happens in windows (see PackPlan), never for a whole set before the first step. What was measured lies in
    a file of 20 bytes a sample, mapped into memory by all ranks of a machine: each begins with another part of a window
    and passes over what others have written meanwhile, so that work is shared without a word between them.

    Args:
        rows: the samples.
        measure: cost of one sample; raises BadSample.
        accept: called with a sample and its number before it is measured; raises BadSample when this stage must not
            train on it.
        fits: refuses costs over the budgets of a pack; raises BadSample.
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
        fits: Callable[[Length, str], None] = lambda length, where: None,
        folder: Path | None = None,
        settings: str = "",
        root: Path | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.rows, self._measure, self._accept, self._fits = rows, measure, accept, fits
        self.rank, self.world_size, self.settings = rank, world_size, settings
        self.refused: dict[int, BadSample] = {}
        if folder is None:
            self._table = np.zeros((len(rows), _FIELDS), np.int32)
        else:
            place = "" if root is None else root.resolve()
            name = hashlib.sha256(f"{rows.fingerprint} {settings} {place}".encode()).hexdigest()[:32]
            self._table = _shared(folder / f"{name}.lengths", len(rows))

    def of(
        self, indices: Sequence[int] | np.ndarray, progress: Callable[[int, int], None] | None = None
    ) -> dict[int, Length]:
        """Costs of those of ``indices`` that can be used; ``refused`` says why the others cannot.

        Args:
            progress: called with (done, total) while samples are measured.
        """
        wanted = np.unique(np.asarray(indices, np.int64))
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
        found: dict[int, Length] = {}
        for index in wanted.tolist():
            if index in self.refused:
                continue
            tokens, patches, supervised, shown, made = (self._table[index] - 1).tolist()
            length = Length(
                tokens=tokens, patches=patches, supervised=supervised, visual_tokens=shown, visual_tokens_made=made
            )
            try:
                self._fits(length, f"sample number {index}")
            except BadSample as bad:
                self.refused[index] = BadSample(bad.reason, where=self._where(index), mend=bad.mend)
                continue
            found[index] = length
        return found

    def _find_out(self, index: int) -> None:
        row = self.rows.row(index)
        try:
            if isinstance(row, BadSample):
                raise row
            self._accept(row, index)
            # One more than each number: a reader that sees a part of a row sees a zero, and measures again.
            self._table[index] = np.array(astuple(self._measure(row)), np.int32) + 1
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
    size = rows * _FIELDS * np.dtype(np.int32).itemsize
    if not rows:
        return np.zeros((0, _FIELDS), np.int32)
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
    return np.memmap(path, np.int32, mode="r+", shape=(rows, _FIELDS))
