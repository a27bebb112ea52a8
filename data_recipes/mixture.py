"""Weights -> an order of samples that is a pure function of (seed, round)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Draws samples from several sources in fixed shares.

    A round draws as many samples as all sources hold together; each source gives its share of them from its own endless
    stream of seeded permutations, so that every sample of a source is seen equally often.

    Attributes:
        sizes: samples of each source.
        weights: relative shares.
        seed: of the whole order.
        temperature: None: shares follow the weights alone. A number T: weights are multiplied by size ** (1 / T), so
            that 1 draws in proportion to size and larger numbers flatten towards the weights (Arivazhagan et al. 2019,
            arXiv:1907.05019, section 4.2).
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int
    temperature: float | None = None

    @property
    def shares(self) -> list[int]:
        """Samples that each source gives to a round."""
        weights = self.weights
        if self.temperature is not None:
            weights = tuple(w * n ** (1 / self.temperature) for w, n in zip(weights, self.sizes, strict=True))
        total, weight = sum(self.sizes), sum(weights)
        return [
            max(1, round(total * share / weight)) if size else 0
            for share, size in zip(weights, self.sizes, strict=True)
        ]

    def round(self, number: int) -> np.ndarray:
        """The samples of one round, shuffled: int64 indices that count through the sources laid end to end.

        Costs 16 bytes for each sample of the round and its source, and no look at any round before it.
        """
        samples = np.empty(sum(self.shares), np.int64)
        offset = at = 0
        for source, (size, share) in enumerate(zip(self.sizes, self.shares, strict=True)):
            for order in self._stream(source, size, number * share, share):
                np.add(order, offset, out=samples[at : at + len(order)])
                at += len(order)
            offset += size
        np.random.default_rng([self.seed, 1, number]).shuffle(samples)
        return samples

    def _stream(self, source: int, size: int, start: int, count: int) -> Iterator[np.ndarray]:
        """Pieces of permutations: positions ``start`` to ``start + count`` of the stream of one source."""
        while count:
            epoch, at = divmod(start, size)
            piece = np.random.default_rng([self.seed, 0, source, epoch]).permutation(size)[at : at + count]
            yield piece
            start, count = start + len(piece), count - len(piece)
