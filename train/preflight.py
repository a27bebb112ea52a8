"""The largest packs of the first window, run before the first step and without an update: what does not fit shows now.

A pack's forward and backward pass is that of a training step, on all ranks together. Its gradient is multiplied by
infinity, which is what engines leave out and forget; random state, loader and weights are as if it had not run.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from medvlm.data_recipes.loader import Loader
from medvlm.data_recipes.packing import Length
from medvlm.model.batch import PackedBatch
from medvlm.train.agreement import same_plan, together
from medvlm.train.config import Stage
from medvlm.train.engine import Engine
from medvlm.train.objectives.objective import Objective
from medvlm.train.optim import scaled_learning_rates
from medvlm.train.randomness import random_state, restore_random_state
from medvlm.train.throughput import GIB, peak_memory

LOOKED_AT = 2048
"""Packs of which the largest are chosen, at most."""


class DoesNotFit(ValueError):
    """The largest pack does not fit in memory."""


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """What ran.

    Attributes:
        packs: (tokens, patches) of each.
        memory_gib: most that this rank held.
    """

    packs: tuple[tuple[int, int], ...]
    memory_gib: float

    def __str__(self) -> str:
        told = ", ".join(f"{tokens:,} tokens with {patches:,} patches" for tokens, patches in self.packs)
        return f"the largest packs of the first window fit ({told}): at most {self.memory_gib:.2f} GiB held"


def preflight(
    engine: Engine, groups: Sequence[dict[str, Any]], stage: Stage, loader: Loader, objective: Objective
) -> Preflight | None:
    """Run the packs with the most tokens, the most patches and the longest samples; all ranks must call it.

    Args:
        groups: of ``parameter_groups``, which the engine was made with.

    Returns:
        None in reinforcement learning, where a pack is only a beginning: what answers take is not known before.

    Raises:
        DoesNotFit: memory ran out; names the pack's size, its samples and what to change.
    """
    if stage.objective == "reinforcement":
        return None
    before, left_out = random_state(), loader.left_out
    ran = []
    ballast = _ballast(engine)
    try:
        # What one rank cannot plan or read stops all of them here, before any waits for it in a collective operation.
        chosen = together(partial(largest, loader), engine.device)
        same_plan(engine, chosen)
        for members, tokens, patches in chosen:
            try:
                pack, _ = together(partial(loader.reader.load, members), engine.device)
                if _run(engine, groups, objective, pack):
                    ran.append((tokens, patches))
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                raise _does_not_fit(error, loader, members, tokens, patches) from error
    finally:
        del ballast
        engine.begin_step(stage.packs_per_step)
        loader.left_out = left_out
        restore_random_state(before)
    return Preflight(packs=tuple(ran), memory_gib=peak_memory(engine.device) / GIB)


def largest(loader: Loader) -> list[tuple[list[int], int, int]]:
    """(members, tokens, patches) of the first window's packs with the most tokens, patches, and squared lengths.

    The same on all ranks; one pack may be all three.
    """
    chosen: dict[tuple[int, ...], tuple[list[int], int, int]] = {}
    known = [(members, list(loader.plan.lengths.of(members).values())) for members in _first_window(loader)]
    if not known:
        return []
    for size in (_tokens, _patches, _squares):
        members, lengths = max(known, key=lambda pack: size(pack[1]))
        chosen[tuple(members)] = (list(members), _tokens(lengths), _patches(lengths))
    return list(chosen.values())


def _first_window(loader: Loader) -> Iterator[Sequence[int]]:
    """Packs from the loader's position to the end of their window."""
    packs = loader.plan.packs(loader.position)
    first = None
    try:
        for number, (after, members) in enumerate(packs):
            first = (after.round, after.window) if first is None else first
            if number == LOOKED_AT or (after.round, after.window) != first:
                return
            yield members
    finally:
        packs.close()


def _tokens(lengths: Sequence[Length]) -> int:
    return sum(length.tokens for length in lengths)


def _patches(lengths: Sequence[Length]) -> int:
    return sum(length.patches for length in lengths)


def _squares(lengths: Sequence[Length]) -> int:
    return sum(length.tokens**2 + length.patches**2 for length in lengths)


def _run(engine: Engine, groups: Sequence[dict[str, Any]], objective: Objective, pack: PackedBatch) -> bool:
    """Whether there was something to run, on any rank; all ranks must call it."""
    engine.begin_step(1)
    if objective.prepares:
        (pack,) = objective.prepare(engine, [pack])
    # Of a pack that processes share, the first may hold no supervised token: it takes part in the pass all the same.
    if not engine.sum_over_ranks(torch.tensor([float(objective.count(pack))])).item():
        return False  # nothing of it could be read: a loss over nothing has no gradient to leave out
    loss = objective(engine.model, pack.to(engine.device))
    total = loss.total
    for part in loss.auxiliary.values():
        total = total + part
    engine.backward(total * math.inf, last=True)
    try:
        with _expected():
            engine.step(scaled_learning_rates(list(groups), 0.0))
    except FloatingPointError:
        return True
    raise AssertionError("an infinite gradient was not left out: the weights are no longer those of the checkpoint")


@contextmanager
def _expected() -> Iterator[None]:
    """DeepSpeed does not warn of the infinite gradient: who reads "OVERFLOW!" before step 1 looks for a fault."""
    logger = logging.getLogger("DeepSpeed")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _ballast(engine: Engine) -> list[torch.Tensor]:
    """On a GPU, the room that the optimizer's state will take: Accelerate makes it at the first update, DeepSpeed at
    its start."""
    parameters = getattr(engine, "parameters", None)
    if engine.device.type != "cuda" or not isinstance(parameters, list):
        return []
    return [torch.empty_like(parameter) for parameter in parameters for _ in range(2)]


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _does_not_fit(
    error: BaseException, loader: Loader, members: Sequence[int], tokens: int, patches: int
) -> DoesNotFit:
    plan = loader.plan
    rows = [loader.reader.rows.row(index) for index in members[:3]]
    names = ", ".join(getattr(row, "sample_id", None) or "a row that cannot be read" for row in rows)
    more = f" and {len(members) - 3} more" if len(members) > 3 else ""
    return DoesNotFit(
        f"the largest pack of the first window does not fit in memory: {tokens:,} tokens and {patches:,} patches of "
        f"{names}{more} ({str(error).splitlines()[0][:200]}); lower data.tokens_per_pack ({plan.tokens_per_pack:,}) or "
        f"data.patches_per_pack ({plan.patches_per_pack:,}), set engine.activation_checkpointing: true, or a higher "
        "zero_stage; `medvlm plan --gpu NAME` says what would fit"
    )
