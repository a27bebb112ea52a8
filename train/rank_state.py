"""The file that each rank adds to a saved state: its random state, and what the rest of the state belongs to."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from medvlm.train.distributed import raise_together
from medvlm.train.randomness import random_state, restore_random_state, seed_everything

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
Write = Callable[[Any, Path], None]
"""Takes one file of a state: what is in it, and where it goes."""


def checksum(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, int]:
    """Name -> sum of the bits of the tensor read as integers, modulo 2**64.

    Integer sums do not depend on the order of summation, hence neither on threads nor on the device, and cost one
    read of the weights.
    """
    sums = {}
    for name, tensor in tensors:
        flat = tensor.detach().contiguous().view(-1)
        sums[name] = int(flat.view(_INTEGERS[flat.element_size()]).sum(dtype=torch.int64))
    return sums


def _path(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank:05d}.pt"


@dataclass(frozen=True, kw_only=True)
class Belongs:
    """What a saved state belongs to.

    Attributes:
        engine: what wrote the rest of the state; a state is loaded by the same.
        trainable: names of the trainable parameters.
        frozen: checksums of the frozen weights that this rank holds; they themselves are not saved.
    """

    engine: str
    rank: int
    world_size: int
    trainable: list[str]
    frozen: dict[str, int]


def save_rank_state(folder: Path, write: Write, belongs: Belongs) -> None:
    """Write this rank's file.

    Args:
        write: of ``Engine.save_state``.
    """
    state = {
        "engine": belongs.engine,
        "world_size": belongs.world_size,
        "trainable": sorted(belongs.trainable),
        "frozen": belongs.frozen,
        "random": random_state(),
    }
    write(state, _path(folder, belongs.rank))


def load_rank_state(folder: Path, belongs: Belongs, device: torch.device, *, shards: bool = False) -> int:
    """Check that the state belongs to this training and put back the random state; all ranks must call it.

    With another number of processes than the state was saved with there is no random state of each rank to put back:
    ranks get new streams, which are a function of the saved one.

    Args:
        shards: each rank holds a part of each frozen weight.

    Returns:
        The number of processes that saved it.

    Raises:
        StoppedByOther: another rank refuses the state.
        FileNotFoundError, ValueError: see ``_check``.
    """
    rank, world_size = belongs.rank, belongs.world_size
    problem: Exception | None = None
    state: dict[str, Any] = {}
    saved = 0
    try:
        state = _load(folder, 0)
        saved = state["world_size"]
        if saved == world_size and rank:
            state = _load(folder, rank)
    except FileNotFoundError as error:
        problem = error
    raise_together(problem, device)
    try:
        if saved != world_size and shards:
            belongs = replace(belongs, frozen=_sum_over_ranks(belongs.frozen, device))
            state["frozen"] = _sum_over_files(folder, saved)
        _check(_path(folder, rank), state, belongs)
    except (FileNotFoundError, ValueError) as error:
        problem = error
    raise_together(problem, device)
    if saved == world_size:
        restore_random_state(state["random"])
    else:
        seed_everything(zlib.crc32(state["random"]["torch"].numpy().tobytes()), rank)
    return saved


def _load(folder: Path, rank: int) -> dict[str, Any]:
    path = _path(folder, rank)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no saved state of rank {rank}; resume from another saved state")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _sum_over_ranks(frozen: dict[str, int], device: torch.device) -> dict[str, int]:
    """Checksums of whole weights from those of their shards: sums of integers, modulo 2**64, add up."""
    names = sorted(frozen)
    sums = torch.tensor([frozen[name] for name in names], dtype=torch.int64, device=device)
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(sums)
    return dict(zip(names, sums.tolist(), strict=True))


def _sum_over_files(folder: Path, count: int) -> dict[str, int]:
    """The same of the ranks that saved."""
    total: dict[str, Tensor] = {}
    for rank in range(count):
        for name, value in _load(folder, rank)["frozen"].items():
            total[name] = total.get(name, torch.zeros((), dtype=torch.int64)) + torch.tensor(value, dtype=torch.int64)
    return {name: int(value) for name, value in total.items()}


def _check(path: Path, state: dict[str, Any], belongs: Belongs) -> None:
    """Refuse what does not belong here.

    Raises:
        ValueError: another engine, set of trainable parameters, or other frozen weights.
    """
    if state["engine"] != belongs.engine:
        raise ValueError(
            f"{path}: saved with engine {state['engine']}, this training has {belongs.engine}; set 'engine' in the "
            "configuration as it was"
        )
    differ = sorted(set(state["trainable"]) ^ set(belongs.trainable))
    if differ:
        raise ValueError(
            f"{path}: {len(differ)} parameters are trainable only in the saved state or only now, the first is "
            f"{differ[0]!r}; resume the stage that saved it"
        )
    for name in sorted(set(state["frozen"]) | set(belongs.frozen)):
        if state["frozen"].get(name) != belongs.frozen.get(name):
            raise ValueError(
                f"{path}: frozen weights {name!r} are not those that the state was saved with; start from the same "
                "checkpoint as the interrupted training"
            )
