"""The order of a stream: a pure function of (seed, epoch), so that where it stands is two integers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class StreamOrder:
    """Shards are permuted; the rows of every ``group`` shards that follow each other are shuffled together.

    Attributes:
        rows: of each shard.
        group: shards that are open at once: more shuffle better and need more room.
    """

    rows: tuple[int, ...]
    seed: int
    group: int = 4

    def groups(self, epoch: int) -> list[list[int]]:
        """Shards of one epoch, in the order in which they are read."""
        order = np.random.default_rng([self.seed, 6, epoch]).permutation(len(self.rows)).tolist()
        return [order[at : at + self.group] for at in range(0, len(order), self.group)]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[int, Sequence[int], np.ndarray]]:
        """(place of the first row, shards, rows) of each group that holds a row at or after place ``start``.

        Rows are numbers of the whole set, shards laid end to end; the first group may begin before ``start``.
        """
        first = np.concatenate(([0], np.cumsum(self.rows)))
        place = 0
        for number, shards in enumerate(self.groups(epoch)):
            count = sum(self.rows[shard] for shard in shards)
            if place + count > start:
                rows = np.concatenate([np.arange(first[shard], first[shard + 1]) for shard in shards])
                yield place, shards, np.random.default_rng([self.seed, 7, epoch, number]).permutation(rows)
            place += count
