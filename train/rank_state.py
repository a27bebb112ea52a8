"""The file that each rank adds to a saved state: its random state, and what the rest of the state belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medvlm.train.distributed import raise_together
from medvlm.train.randomness import random_state, restore_random_state

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


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


def save_rank_state(
    folder: Path,
    *,
    engine: str,
    rank: int,
    world_size: int,
    trainable: list[str],
    frozen: dict[str, int],
) -> None:
    """Write this rank's file.

    Args:
        engine: what wrote the rest of the state; a state is loaded by the same.
        trainable: names of the trainable parameters.
        frozen: checksums of the frozen weights that this rank holds; they themselves are not saved.
    """
    state = {
        "engine": engine,
        "world_size": world_size,
        "trainable": sorted(trainable),
        "frozen": frozen,
        "random": random_state(),
    }
    torch.save(state, _path(folder, rank))


def load_rank_state(
    folder: Path,
    *,
    engine: str,
    rank: int,
    world_size: int,
    trainable: list[str],
    frozen: dict[str, int],
    device: torch.device,
) -> None:
    """Check that the state belongs to this training and put back the random state; all ranks must call it.

    Raises:
        RuntimeError: another rank refuses the state.
        FileNotFoundError, ValueError: see ``_check``.
    """
    problem: Exception | None = None
    random: dict[str, Any] = {}
    try:
        random = _check(
            _path(folder, rank), engine=engine, rank=rank, world_size=world_size, trainable=trainable, frozen=frozen
        )
    except (FileNotFoundError, ValueError) as error:
        problem = error
    raise_together(problem, device)
    restore_random_state(random)


def _check(
    path: Path, *, engine: str, rank: int, world_size: int, trainable: list[str], frozen: dict[str, int]
) -> dict[str, Any]:
    """The random state in the file at ``path``.

    Raises:
        FileNotFoundError: this rank saved nothing there.
        ValueError: another engine, number of ranks, set of trainable parameters, or other frozen weights.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no saved state of rank {rank}; resume with the ranks that saved it")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    for name, mine, mend in (
        ("world_size", world_size, "start as many processes as saved it"),
        ("engine", engine, "set 'engine' in the configuration as it was"),
    ):
        if state[name] != mine:
            raise ValueError(f"{path}: saved with {name} {state[name]}, this training has {mine}; {mend}")
    differ = sorted(set(state["trainable"]) ^ set(trainable))
    if differ:
        raise ValueError(
            f"{path}: {len(differ)} parameters are trainable only in the saved state or only now, the first is "
            f"{differ[0]!r}; resume the stage that saved it"
        )
    for name in sorted(set(state["frozen"]) | set(frozen)):
        if state["frozen"].get(name) != frozen.get(name):
            raise ValueError(
                f"{path}: frozen weights {name!r} are not those that the state was saved with; start from the same "
                "checkpoint as the interrupted training"
            )
    return state["random"]
