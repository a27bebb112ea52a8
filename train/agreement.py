"""What ranks tell each other before each step: its items, what was left out of it, and whether all can go on."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TypeVar

import torch

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.loader import Loader
from medvlm.train.distributed import of_all_ranks, raise_together
from medvlm.train.engine import Engine

Made = TypeVar("Made")


def agree(engine: Engine, loader: Loader, counts: Sequence[float], problem: Exception | None) -> list[float]:
    """Items of each loss of the step over all ranks; all ranks must call it, once before each step.

    One sum carries everything, so that a step without news costs what the sum of the counts alone would. What a rank
    could not read goes to the quarantine of all of them, which therefore counts the same everywhere.

    Args:
        counts: items in the packs of this rank.
        problem: why this rank has no packs.

    Raises:
        Exception: ``problem`` itself where there is one; on the other ranks a StoppedByOther that names the ranks.
        BadSample: more is left out than the limit of the quarantine, on all ranks.
        ValueError: ranks plan different packs, on all ranks.
    """
    order = loader.order % 2**20  # small, so that the sums below are exact
    told = [float(problem is not None), float(len(loader.left_out)), float(order), float(order**2), *counts]
    problems, left_out, orders, squares, *totals = engine.sum_over_ranks(
        torch.tensor(told, dtype=torch.float64)
    ).tolist()
    if problems:
        raise_together(problem, engine.device)
    _refuse_differing(engine, orders, squares)
    if left_out:
        raise_together(_note(engine, loader), engine.device)
    return totals


def same_plan(engine: Engine, planned: object) -> None:
    """Refuse, on all ranks, when what they have ``planned`` differs; all ranks must call it.

    Raises:
        ValueError: see above.
    """
    order = zlib.crc32(repr(planned).encode()) % 2**20
    orders, squares = engine.sum_over_ranks(torch.tensor([order, order**2], dtype=torch.float64)).tolist()
    _refuse_differing(engine, orders, squares)


def _refuse_differing(engine: Engine, orders: float, squares: float) -> None:
    # Numbers are equal just when the square of their sum is their count times the sum of their squares.
    if int(orders) ** 2 != engine.world_size * int(squares):
        raise ValueError(
            "the ranks have planned different packs, so that samples would be lost or repeated: a file can be read by "
            "one rank and not by another, or differs between machines; give every machine the same files (the lines "
            "of quarantine.jsonl are those of rank 0)"
        )


def _note(engine: Engine, loader: Loader) -> BadSample | None:
    """Quarantine what all ranks left out; why that is too much, where a rank has seen so few samples yet."""
    try:
        loader.quarantine.add(chain.from_iterable(of_all_ranks(loader.left_out)), write=engine.rank == 0)
    except BadSample as bad:
        return bad
    return None


def together(make: Callable[[], Made], device: torch.device) -> Made:
    """What ``make`` returns; when it raises on one rank, all ranks raise. All ranks must call it.

    Raises:
        Exception: what ``make`` raised; on the other ranks a StoppedByOther that names the ranks.
    """
    try:
        made = make()
    except Exception as error:
        raise_together(error, device)
        raise
    raise_together(None, device)
    return made
