"""All rows of a shard set in a seeded order, shard after shard: what reads remote storage at its full speed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers.shard_member import member_bytes
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.shards.byte_ranges import is_url, join
from medvlm.data_recipes.shards.cache import ShardCache
from medvlm.data_recipes.shards.members import refs_of
from medvlm.data_recipes.shards.order import StreamOrder
from medvlm.data_recipes.shards.reader import ShardSet
from medvlm.data_recipes.shards.storage import same


@dataclass(frozen=True, kw_only=True)
class _Shard:
    """Where the rows of a shard are read: a checked copy, or None for where it lies; ``whole``: its sum is right."""

    copy: Path | None
    whole: bool


@dataclass(frozen=True, kw_only=True)
class _Group:
    """``rows[i]`` is the row at place ``first + i`` of the epoch; ``shards`` are those it takes rows from."""

    first: int
    rows: np.ndarray
    shards: dict[int, _Shard]


def stream(
    shards: ShardSet,
    *,
    seed: int = 0,
    epoch: int = 0,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
    group: int = 4,
) -> Iterator[tuple[int, Sample | BadSample]]:
    """(place, row) of one epoch for one rank: places start + rank, start + rank + world_size, ...

    A shard is fetched whole before its rows are used (into the set's cache, else into a temporary folder that holds two
    groups), its SHA-256 is compared, and the next group is fetched meanwhile. When it is not what the index says, its
    rows are read and checked one by one: the intact ones are given, the others are a BadSample in their place.

    Args:
        start: rows that all ranks together have used up; with (seed, epoch) it is the whole state, and the number of
            ranks may change there.
        group: shards whose rows are shuffled together.

    Raises:
        ConnectionError: a remote storage that keeps failing.
    """
    sizes = [entry["bytes"] for entry in shards.shards]
    order = StreamOrder(rows=tuple(entry["rows"] for entry in shards.shards), seed=seed, group=group)
    with tempfile.TemporaryDirectory(prefix="medvlm-shards-") as folder:
        cache = shards.cache
        if cache is None and is_url(shards.url):
            cache = ShardCache(folder=Path(folder), max_bytes=2 * group * max(sizes, default=0))

        def prepare(item: tuple[int, Sequence[int], np.ndarray]) -> _Group:
            first, members, rows = item
            return _Group(first=first, rows=rows, shards={shard: _prepared(shards, shard, cache) for shard in members})

        for ready in _ahead(prepare, order.epoch(epoch, start)):
            for place, index in enumerate(ready.rows.tolist(), start=ready.first):
                if place >= start and (place - start) % world_size == rank:
                    yield place, _row(shards, index, ready)


def _ahead(
    prepare: Callable[[tuple[int, Sequence[int], np.ndarray]], _Group],
    items: Iterator[tuple[int, Sequence[int], np.ndarray]],
) -> Iterator[_Group]:
    """Each group, while the next is prepared in a thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="medvlm-shards") as thread:
        coming = None
        for item in items:
            following = thread.submit(prepare, item)
            if coming is not None:
                yield coming.result()
            coming = following
        if coming is not None:
            yield coming.result()


def _prepared(shards: ShardSet, shard: int, cache: ShardCache | None) -> _Shard:
    entry = shards.shards[shard]
    if cache is not None:
        copy = shards.fetch(shard, cache)
        return _Shard(copy=copy, whole=copy is not None)
    whole = same(join(shards.url, entry["name"]), size=entry["bytes"], sha256=entry["sha256"])
    return _Shard(copy=None, whole=whole)


def _row(shards: ShardSet, index: int, group: _Group) -> Sample | BadSample:
    shard, number = shards.place(index)
    state = group.shards[shard]
    row = shards.read_row(shard, number, state.copy)
    if isinstance(row, Sample) and not state.whole:
        for ref in refs_of(row):
            try:
                member_bytes(ref.path, ref.options, f"{ref.path}::{ref.options['member']}")
            except BadSample as bad:
                return BadSample(bad.reason, where=bad.where, mend=bad.mend, sample_id=row.sample_id)
    return row
