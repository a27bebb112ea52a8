"""What other patients' samples say and show: a bounded sample of each group, the same whatever the order of rows."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from medvlm.data_recipes.sample import Sample, VisualRef

PER_GROUP, MOST_GROUPS = 512, 4096
"""Samples kept of each group, and groups at most: what bounds the memory."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A sample as others may use it: its answer, its findings, its visuals."""

    sample_id: str
    patient_id: str
    prompt: str
    answer: str
    report: bool
    positives: frozenset[str]
    visuals: tuple[VisualRef, ...]


def group_name(sample: Sample) -> str:
    """Source, modality, part of the body and kinds of visuals: what must agree before one may stand for another."""
    metadata = sample.metadata
    part = metadata.get("body_part") or metadata.get("organ") or ""
    kinds = "+".join(ref.kind for ref in sample.visuals())
    return "|".join((sample.source, str(metadata.get("modality", "unknown")), str(part), kinds)).lower()


class Pool:
    """Keeps the PER_GROUP samples of each group whose seeded hash is smallest (bottom-k sampling).

    Args:
        seed: of the choice.
        size: samples kept of each group.
    """

    def __init__(self, seed: int = 0, size: int = PER_GROUP) -> None:
        self.seed, self.size = seed, size
        self._heaps: dict[str, list[tuple[int, str, Entry]]] = {}
        self._ordered: dict[str, list[Entry]] = {}

    def wants(self, group: str, sample_id: str) -> bool:
        """Whether ``add`` would keep it: lets the caller skip the reading of its text."""
        heap = self._heaps.get(group, [])
        return len(heap) < self.size or -self._rank(sample_id) > heap[0][0]

    def add(self, group: str, entry: Entry) -> None:
        """Offer one sample.

        Raises:
            ValueError: too many groups: a metadata field that should name a modality names something else.
        """
        if group not in self._heaps and len(self._heaps) >= MOST_GROUPS:
            raise ValueError(
                f"more than {MOST_GROUPS} groups of source, modality and body part, the last {group!r}; "
                "write modalities into metadata.modality and body parts into metadata.body_part"
            )
        heap = self._heaps.setdefault(group, [])
        self._ordered.pop(group, None)
        item = (-self._rank(entry.sample_id), entry.sample_id, entry)
        if len(heap) < self.size:
            heapq.heappush(heap, item)
        elif item[:2] > heap[0][:2]:
            heapq.heapreplace(heap, item)

    def _rank(self, sample_id: str) -> int:
        return int.from_bytes(hashlib.blake2b(f"{self.seed}/{sample_id}".encode(), digest_size=8).digest(), "big")

    def others(self, group: str, patient_id: str, rng: np.random.Generator) -> Iterator[Entry]:
        """Entries of other patients of the group, in an order drawn from ``rng``."""
        if group not in self._ordered:
            ranked = sorted(self._heaps.get(group, ()), key=lambda item: item[:2])
            self._ordered[group] = [entry for _, _, entry in ranked]
        entries = self._ordered[group]
        for place in rng.permutation(len(entries)):
            if entries[place].patient_id != patient_id:
                yield entries[place]

    def sizes(self) -> dict[str, int]:
        """Number of samples kept of each group."""
        return {group: len(heap) for group, heap in sorted(self._heaps.items())}
