"""All pairs of 256-bit hashes within a Hamming distance, without comparing every hash with every other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

BITS = 256
WORDS = BITS // 64
MOST = 24
"""Largest distance that is searched: bands get so short beyond it that little is saved."""

_PAIRS_AT_ONCE = 1 << 21


class HammingIndex:
    """Hashes sorted by their bands.

    Two hashes that differ in at most d bits are equal in at least one of d + 1 bands (pigeonhole principle; multi-index
    hashing, Norouzi, Punjani and Fleet, CVPR 2012), so that comparing those that share a band misses no pair.

    Args:
        hashes: (N, 4) uint64.
        distance: d, from 0 to MOST.
    """

    def __init__(self, hashes: np.ndarray, distance: int) -> None:
        if not 0 <= distance <= MOST:
            raise ValueError(f"a Hamming distance of {distance} bits; use 0 to {MOST} of {BITS}")
        self.hashes, self.distance = _checked(hashes), distance
        edges = np.linspace(0, BITS, distance + 2).astype(int)
        # Bits of a row or column of an image are much alike: a band takes bits from all over, in a fixed order.
        order = np.random.default_rng(0).permutation(BITS)
        self._bands = [order[low:high] for low, high in pairwise(edges)]
        self._sorted = []
        for keys in self._keys(self.hashes):
            places = np.argsort(keys, kind="stable")
            self._sorted.append((keys[places], places))

    def near(self, queries: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Pairs within the distance, in pieces; a pair may come more than once.

        Args:
            queries: (M, 4) uint64.

        Returns:
            (places in queries, places in the index, distances), three arrays of equal length.
        """
        queries = _checked(queries)
        for keys, (found, places) in zip(self._keys(queries), self._sorted, strict=True):
            low = np.searchsorted(found, keys, side="left")
            counts = np.searchsorted(found, keys, side="right") - low
            ends = np.cumsum(counts)
            start = 0
            while start < len(keys):
                before = ends[start] - counts[start]
                stop = max(start + 1, int(np.searchsorted(ends, before + _PAIRS_AT_ONCE, side="right")))
                asked, some = np.arange(start, stop), counts[start:stop]
                query = np.repeat(asked, some)
                within = np.arange(some.sum()) - np.repeat(np.cumsum(some) - some, some)
                other = places[np.repeat(low[start:stop], some) + within]
                apart = np.bitwise_count(queries[query] ^ self.hashes[other]).sum(axis=1)
                kept = apart <= self.distance
                if kept.any():
                    yield query[kept], other[kept], apart[kept]
                start = stop

    def _keys(self, hashes: np.ndarray) -> Iterator[np.ndarray]:
        """Each band of each hash as a number; a band of more than 64 bits as a mixture of its bits, so that it may
        bring pairs that differ, which the comparison then drops, and misses none."""
        bits = np.unpackbits(hashes.astype("<u8").view(np.uint8).reshape(len(hashes), BITS // 8), axis=1)
        for band in self._bands:
            packed = np.packbits(bits[:, band], axis=1)
            wide = np.zeros((len(hashes), -(-packed.shape[1] // 8) * 8), np.uint8)
            wide[:, : packed.shape[1]] = packed
            words = wide.view("<u8")
            key = words[:, 0].copy()
            for word in range(1, words.shape[1]):
                key = key * np.uint64(0x9E3779B97F4A7C15) + words[:, word]
            yield key


def _checked(hashes: np.ndarray) -> np.ndarray:
    if hashes.dtype != np.uint64 or hashes.ndim != 2 or hashes.shape[1] != WORDS:
        raise ValueError(f"hashes must be (N, {WORDS}) uint64, got {hashes.shape} {hashes.dtype}")
    return np.ascontiguousarray(hashes)
