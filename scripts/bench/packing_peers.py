"""How others make batches of samples, written again from what they publish (their own code is not run).

Each takes sizes (columns) and the tokens of a pack, and returns packs of positions; what is in none was dropped. They
count tokens only; nanoVLM also counts pictures.

- TRL 1.16, ``pack_dataset(strategy="bfd")``: best fit over falling lengths, in batches of 1,000 of ``datasets.map``.
- LLaMA-Factory, ``greedy_knapsack``: fill one pack after the other with the largest that fits, in batches of 1,000.
- ms-swift, ``binpacking.to_constant_volume``: falling weights, each into the fullest bin that takes it, batches of
  1,000, the last pack going on into the next batch.
- nanoVLM, ``_balanced_greedy_knapsack``: falling lengths, each into the emptiest of as many packs as the tokens need
  and five more; at most 4 pictures a sample (others are dropped in silence) and 18 a pack; buffers of 1,024.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator

import numpy as np

from medvlm.data_recipes.packing import Sizes

Packer = Callable[[Sizes, int], list[list[int]]]
BATCH = 1000


def _batches(sizes: Sizes, batch: int = BATCH) -> Iterator[np.ndarray]:
    total = len(sizes["tokens"])
    for start in range(0, total, batch):
        yield np.arange(start, min(start + batch, total))


def _best_fit(lengths: list[int], names: list[int], capacity: int) -> list[list[int]]:
    """Falling lengths, each into the fullest pack that takes it."""
    rooms: list[tuple[int, int]] = []
    packs: list[list[int]] = []
    for length, name in sorted(zip(lengths, names, strict=True), key=lambda pair: -pair[0]):
        at = bisect_left(rooms, (length, -1))
        if at == len(rooms):
            packs.append([])
            room, number = capacity, len(packs) - 1
        else:
            room, number = rooms.pop(at)
        packs[number].append(name)
        insort(rooms, (room - length, number))
    return packs


def trl(sizes: Sizes, capacity: int) -> list[list[int]]:
    """TRL's best fit decreasing."""
    packs: list[list[int]] = []
    for batch in _batches(sizes):
        packs += _best_fit(sizes["tokens"][batch].tolist(), batch.tolist(), capacity)
    return packs


def llama_factory(sizes: Sizes, capacity: int) -> list[list[int]]:
    """LLaMA-Factory's greedy knapsack."""
    packs: list[list[int]] = []
    for batch in _batches(sizes):
        order = batch[np.argsort(sizes["tokens"][batch], kind="stable")].tolist()
        lengths = sizes["tokens"][order].tolist()
        while lengths:
            room, members = capacity, []
            while (at := bisect_right(lengths, room) - 1) >= 0:
                room -= lengths.pop(at)
                members.append(order.pop(at))
            packs.append(members)
    return packs


def ms_swift(sizes: Sizes, capacity: int) -> list[list[int]]:
    """ms-swift's constant volume, the last pack carried into the next batch."""
    packs: list[list[int]] = []
    carried: list[int] = []
    for batch in _batches(sizes):
        names = carried + batch.tolist()
        made = _best_fit(sizes["tokens"][names].tolist(), names, capacity)
        carried = made.pop()
        packs += made
    return [*packs, carried] if carried else packs


def nano_vlm(sizes: Sizes, capacity: int, pictures: int = 4, pictures_in_pack: int = 18) -> list[list[int]]:
    """nanoVLM's balanced greedy knapsack."""
    packs: list[list[int]] = []
    for batch in _batches(sizes, 1024):
        kept = batch[(sizes["pictures"][batch] <= pictures) & (sizes["tokens"][batch] <= capacity)]
        order = kept[np.argsort(-sizes["tokens"][kept], kind="stable")]
        count = -(-int(sizes["tokens"][kept].sum()) // capacity) + 5
        loads, shown = np.zeros(count, np.int64), np.zeros(count, np.int64)
        members: list[list[int]] = [[] for _ in range(count)]
        for name in order.tolist():
            length, own = int(sizes["tokens"][name]), int(sizes["pictures"][name])
            free = (loads + length <= capacity) & (shown + own <= pictures_in_pack)
            if free.any():
                at = int(np.where(free, loads, capacity + 1).argmin())
            else:
                loads, shown = np.append(loads, 0), np.append(shown, 0)
                members.append([])
                at = len(members) - 1
            members[at].append(name)
            loads[at], shown[at] = loads[at] + length, shown[at] + own
        packs += [pack for pack in members if pack]
    return packs


PACKERS: dict[str, Packer] = {"TRL": trl, "LLaMA-Factory": llama_factory, "ms-swift": ms_swift, "nanoVLM": nano_vlm}


def within_patches(packs: list[list[int]], sizes: Sizes, most: int) -> list[list[int]]:
    """Packs that hold too many patches are cut where they overflow: what a user of a packer of tokens has to do."""
    patches = sizes["patches"].tolist()
    out: list[list[int]] = []
    for members in packs:
        held = 0
        out.append([])
        for name in members:
            if held + patches[name] > most:
                out.append([])
                held = 0
            out[-1].append(name)
            held += patches[name]
    return out


def padding(lengths: np.ndarray, *, batch: int = 8, grouped: bool, seed: int = 0) -> float:
    """Share of padding where each batch is padded to its longest sample.

    Args:
        grouped: batches of similar lengths, as transformers' ``group_by_length`` makes them: sorted within 50 batches.
    """
    order = np.random.default_rng(seed).permutation(len(lengths))
    if grouped:
        large = 50 * batch
        parts = [order[start : start + large] for start in range(0, len(order), large)]
        order = np.concatenate([part[np.argsort(-lengths[part], kind="stable")] for part in parts])
    rows = [lengths[order[start : start + batch]] for start in range(0, len(order), batch)]
    return 1 - float(lengths.sum()) / sum(int(row.max()) * len(row) for row in rows)
