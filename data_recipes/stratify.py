"""A small part of many samples in which every source, kind of visual, topic and scan has its place."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeVar

from medvlm.data_recipes.asking import DIMENSIONS
from medvlm.data_recipes.sample import Sample

T = TypeVar("T")


def dimension(sample: Sample) -> str:
    """2d, 3d or video; "mixed" when the visuals are of several kinds, "text" when there are none."""
    found = {DIMENSIONS[ref.kind] for ref in sample.visuals()}
    return found.pop() if len(found) == 1 else ("mixed" if found else "text")


def spread(samples: Iterable[Sample], limit: int, *, seed: int = 0) -> list[Sample]:
    """At most ``limit`` samples: each (source, dimension) in turn, so that no large source crowds out a small one.

    Inside a group every scan comes once before any comes twice, and among these the topics take turns; what is left
    open a seeded hash decides, never the order of ``samples``.
    """
    groups: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[(sample.source, dimension(sample))].append(sample)
    piles = [_varied(groups[key], seed) for key in sorted(groups)]
    return in_turn(piles)[:limit]


def in_turn(piles: Sequence[Sequence[T]]) -> list[T]:
    """The first of every pile, then the second of every pile, until all are empty."""
    longest = max(map(len, piles), default=0)
    return [pile[place] for place in range(longest) for pile in piles if place < len(pile)]


def _varied(samples: Iterable[Sample], seed: int) -> list[Sample]:
    """Ordered by how often the scan, and then the topic and modality, stood before."""
    shuffled = sorted(samples, key=lambda s: hashlib.sha256(f"{seed}/{s.sample_id}".encode()).hexdigest())
    times: Counter[str] = Counter()
    by_repeat: dict[int, list[Sample]] = defaultdict(list)
    for sample in shuffled:
        scan = " ".join(f"{ref.sha256 or ref.path} {ref.options}" for ref in sample.visuals()) or sample.sample_id
        by_repeat[times[scan]].append(sample)
        times[scan] += 1
    ordered: list[Sample] = []
    for repeat in sorted(by_repeat):
        topics: dict[tuple[str, ...], list[Sample]] = defaultdict(list)
        for sample in by_repeat[repeat]:
            kind = sample.question.kind if sample.question else ""
            said = (str(sample.metadata.get("topic", "")), str(sample.metadata.get("modality", "")))
            topics[(kind, *said)].append(sample)
        ordered += in_turn([topics[key] for key in sorted(topics)])
    return ordered
