"""Which row of the manifests lies in which shard: a pure function of the manifests, the options and the seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.rows import Joined, ManifestRows
from medvlm.data_recipes.sample import Sample


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Row p of the order stands in shard p // rows_per_shard, refused rows included: no size need be known.

    Attributes:
        manifests: of one split.
        order: (N,) the rows of the manifests, laid end to end, in the order in which they are written.
        split: of the set; its name is the shards' first word.
    """

    manifests: tuple[ManifestRows, ...]
    order: np.ndarray
    rows_per_shard: int
    split: str

    @property
    def shards(self) -> int:
        return -(-len(self.order) // self.rows_per_shard)

    def name(self, shard: int) -> str:
        """ "train-00012.tar" """
        return f"{self.split}-{shard:05d}.tar"

    def rows(self, shard: int) -> Iterator[tuple[str, Sample | BadSample, str]]:
        """(key, row, "path:line") of one shard; the key is the place in the order."""
        joined, first = Joined(self.manifests), shard * self.rows_per_shard
        for place, index in enumerate(self.order[first : first + self.rows_per_shard].tolist(), start=first):
            source, row = joined.place(index)
            where = self.manifests[source].where(row)
            yield f"{place:09d}", self._of_split(joined.row(index), where), where

    def _of_split(self, row: Sample | BadSample, where: str) -> Sample | BadSample:
        if isinstance(row, BadSample) or row.split == self.split:
            return row
        return BadSample(
            f"split {row.split!r} among rows of {self.split!r}",
            where=where,
            mend="make one shard set for each split, from manifests of that split alone",
            sample_id=row.sample_id,
        )

    def options(self) -> dict[str, Any]:
        """What the dealing of rows depends on, JSON-ready; names of manifests, not their folders."""
        return {
            "manifests": [{"name": rows.path.name, "sha256": rows.fingerprint} for rows in self.manifests],
            "order_sha256": hashlib.sha256(self.order.astype("<i8").tobytes()).hexdigest(),
            "rows_per_shard": self.rows_per_shard,
            "split": self.split,
        }


def order_of(rows: int, seed: int | None) -> np.ndarray:
    """(rows,) a seeded permutation, or the manifests' own order when there is no seed."""
    return np.arange(rows) if seed is None else np.random.default_rng([seed, 5]).permutation(rows)


def split_of(manifests: tuple[ManifestRows, ...]) -> str:
    """The split of the first good row of each manifest, which must be one.

    Raises:
        ValueError: manifests of several splits, or no good row at all.
    """
    splits: dict[str, str] = {}
    for rows in manifests:
        first = next((row for row in map(rows.row, range(len(rows))) if isinstance(row, Sample)), None)
        if first is not None:
            splits.setdefault(first.split, rows.path.name)
    if len(splits) > 1:
        said = ", ".join(f"{name} is {split}" for split, name in splits.items())
        raise ValueError(f"{said}; make one shard set for each split, in its own folder")
    if not splits:
        raise ValueError("no row of the manifests can be used; run medvlm data check on them")
    return next(iter(splits))
