"""Weights -> an order of samples that is a pure function of (seed, round)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Draws samples from several sources in fixed shares.

    A round draws as many samples as all sources hold together; source s gives ``weights[s] / sum(weights)`` of them,
    from its own endless stream of seeded permutations, so that every sample of a source is seen equally often.

    Attributes:
        sizes: samples of each source.
        weights: relative shares.
        seed: of the whole order.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int

    @property
    def shares(self) -> list[int]:
        """Samples that each source gives to a round."""
        total, weight = sum(self.sizes), sum(self.weights)
        return [
            max(1, round(total * share / weight)) if size else 0
            for share, size in zip(self.weights, self.sizes, strict=True)
        ]

    def round(self, number: int) -> list[int]:
        """The samples of one round, shuffled; an index counts through the sources laid end to end."""
        drawn: list[int] = []
        offset = 0
        for source, (size, share) in enumerate(zip(self.sizes, self.shares, strict=True)):
            drawn += [offset + i for i in self._stream(source, size, number * share, share)]
            offset += size
        rng = np.random.default_rng([self.seed, 1, number])
        return [drawn[i] for i in rng.permutation(len(drawn))]

    def _stream(self, source: int, size: int, start: int, count: int) -> Sequence[int]:
        out: list[int] = []
        while len(out) < count:
            epoch, at = divmod(start + len(out), size)
            order = np.random.default_rng([self.seed, 0, source, epoch]).permutation(size)
            out += order[at : at + count - len(out)].tolist()
        return out
