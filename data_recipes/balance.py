"""The packs of a step -> ranks, so that all ranks have about the same to compute and none waits for another."""

from __future__ import annotations

from collections.abc import Sequence


def deal(costs: Sequence[float], ranks: int) -> list[list[int]]:
    """Give every rank the same number of packs, and as far as they allow the same cost.

    The costliest pack first, each to the rank that has least so far (longest processing time first: Graham 1969, SIAM
    J. Appl. Math. 17(2)). A rank takes its packs in that order: ranks that meet after each pack, as under ZeRO 3, then
    meet at about the same time too, and what needs most memory comes first.

    Args:
        costs: of the packs of one step, as many as a multiple of ``ranks``.

    Returns:
        For each rank the numbers of its packs.

    >>> deal([5.0, 1.0, 4.0, 2.0], ranks=2)
    [[0, 1], [2, 3]]
    """
    each, rest = divmod(len(costs), ranks)
    if rest:
        raise ValueError(f"{len(costs)} packs cannot be dealt evenly to {ranks} ranks")
    hands: list[list[int]] = [[] for _ in range(ranks)]
    spent = [0.0] * ranks
    for number in sorted(range(len(costs)), key=lambda number: (-costs[number], number)):
        rank = min((r for r in range(ranks) if len(hands[r]) < each), key=lambda r: (spent[r], r))
        hands[rank].append(number)
        spent[rank] += costs[number]
    return hands
