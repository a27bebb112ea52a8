"""Packs are filled one after the other, each with the largest samples that fit: what ``packing.pack`` computes.

Bin packing is NP-hard; with one budget, the largest sample first leaves almost nothing empty. Three things are added to
it. Samples that cost more than the average for their size and those that cost less stand on two shelves, and a pack
takes from whichever brings it back to the average: all packs then cost about the same, and patches do not run out
before tokens do. The budget of which most is asked is filled first, and the other one only held. And where a last
sample would leave a gap, two smaller ones that leave none are looked for.
"""

from __future__ import annotations

from bisect import bisect_left
from math import fsum

import numpy as np

_BITS = 31
_MASK = (1 << _BITS) - 1
_TRIES = 12
"""Samples that are looked at below the largest one that fits the first budget, for one that fits the others too."""
_PAIRS = 24
"""Samples that are looked at for a pair that leaves no gap."""
_TIGHT = 0.9
"""Share of one budget, relative to the other, from which a set of samples is taken to need both."""
_AHEAD = 1.1
"""How far above the average packs are held then; measured on the mixes of scripts/bench/packing.py."""
_LITTLE = 1e-6
_ROUNDING = 1e-12
_SURE = 0.1
"""Quantile of (size / other size) from which a sample of a given size nearly always fits the other budget."""


class _Shelf:
    """Samples in rising order of a size, each a number that holds size and index.

    Attributes:
        reach: largest size that a unit of the other budget allows.
        sure: size that a unit of the other budget allows nearly all samples.
    """

    def __init__(self, members: np.ndarray, size: np.ndarray, other: np.ndarray) -> None:
        self.keys: list[int] = np.sort((size[members] << _BITS) | members).tolist()
        ratio = size[members] / (other[members] + _LITTLE)
        # A little more: what is divided and multiplied again may come out smaller, and the sample would not be found.
        self.reach = float(ratio.max(initial=0.0)) * (1 + _ROUNDING)
        self.sure = float(np.quantile(ratio, _SURE)) if len(members) else 0.0


def fill(tokens: np.ndarray, patches: np.ndarray, costs: np.ndarray, limits: tuple[int, int, float]) -> list[list[int]]:
    """Packs of positions; every sample is in exactly one.

    Args:
        tokens, patches: (n,) int64, each at most its limit.
        costs: (n,) float64, each at most its limit.
        limits: tokens, patches and cost of a pack; the cost may be infinite.
    """
    by_patches = bool(patches.sum() / limits[1] > tokens.sum() / limits[0])
    size, other = (patches, tokens) if by_patches else (tokens, patches)
    whole, whole_other = (limits[1], limits[0]) if by_patches else (limits[0], limits[1])
    # Where both budgets are nearly used up, packs are held to the average of the other one instead of that of the cost,
    # and a little above it, because what is left of it at the end of a pack is lost.
    tight = bool(other.sum() / whole_other > _TIGHT * size.sum() / whole)
    steered = other.astype(np.float64) if tight else costs
    left_size, left_steered = int(size.sum()), fsum(steered.tolist())
    costly = steered * left_size > left_steered * size
    everyone = np.arange(len(tokens))
    # Where patches are short, text has none of them: it is costly for its size, and is fitted by its tokens.
    rich = _Shelf(everyone[costly], *((other, size) if by_patches else (size, other)))
    poor = _Shelf(everyone[~costly], size, other)
    rich_first, poor_first, crossed = (rich, poor), (poor, rich), rich if by_patches else None
    paired = (poor,) if by_patches else poor_first
    # Single numbers are read faster from lists than from arrays.
    sizes, others, prices, worth = size.tolist(), other.tolist(), costs.tolist(), steered.tolist()
    present: list[int] = np.bincount(size, minlength=whole + 1).tolist()
    smallest = int(size[size > 0].min(initial=whole))

    def next_largest(keys: list[int], below: int) -> int:
        """Where in ``keys``, below a place, the largest sample stands that fits all rooms; -1: none was found."""
        for at in range(below - 1, max(below - _TRIES, 0) - 1, -1):
            index = keys[at] & _MASK
            if sizes[index] <= room and others[index] <= room_other and prices[index] <= room_cost:
                return at
        return -1

    def exact() -> tuple[int, ...]:
        """Two samples, taken from their shelves, that fill ``room`` to the last."""
        for shelf in paired:
            start = bisect_left(shelf.keys, (room // 2 + 1) << _BITS) - 1
            for at in range(start, max(start - _PAIRS, -1), -1):
                index = shelf.keys[at] & _MASK
                rest = room - sizes[index]
                if present[rest] <= (rest == sizes[index]):
                    continue
                for partner in paired:
                    place = bisect_left(partner.keys, rest << _BITS)
                    if place == len(partner.keys) or partner.keys[place] >> _BITS != rest:
                        continue
                    second = partner.keys[place] & _MASK
                    fits = others[index] + others[second] <= room_other
                    if second == index or not fits or prices[index] + prices[second] > room_cost:
                        continue
                    del partner.keys[place]
                    del shelf.keys[at - (partner is shelf and place < at)]
                    return index, second
        return ()

    packs: list[list[int]] = []
    while rich.keys or poor.keys:
        room, room_other, room_cost, paid = whole, whole_other, limits[2], 0.0
        rate = (_AHEAD if tight else 1.0) * left_steered / max(whole, left_size)
        members: list[int] = []
        while True:
            at = -1
            for shelf in rich_first if paid <= rate * (whole - room) else poor_first:
                own, cross = (room_other, room) if shelf is crossed else (room, room_other)
                most = (cross + _LITTLE) * shelf.reach
                if most > own:
                    most = own
                keys = shelf.keys
                at = bisect_left(keys, (int(most) + 1) << _BITS) - 1
                if at < 0:
                    continue
                found = keys[at] & _MASK
                if sizes[found] <= room and others[found] <= room_other and prices[found] <= room_cost:
                    break
                at = next_largest(keys, at)
                if at < 0 and cross * shelf.sure < most:
                    at = next_largest(keys, bisect_left(keys, (int(cross * shelf.sure) + 1) << _BITS))
                if at >= 0:
                    found = keys[at] & _MASK
                    break
            if at < 0:
                break
            chosen: tuple[int, ...] = ()
            if 0 < room - sizes[found] < smallest:
                chosen = exact()
            if not chosen:
                chosen = (found,)
                del keys[at]
            for index in chosen:
                members.append(index)
                present[sizes[index]] -= 1
                room -= sizes[index]
                room_other -= others[index]
                room_cost -= prices[index]
                paid += worth[index]
        if not members:
            raise RuntimeError("no sample was found that fits an empty pack: the shelves are wrong; please report it")
        left_size -= whole - room
        left_steered -= paid
        packs.append(members)
    return packs
