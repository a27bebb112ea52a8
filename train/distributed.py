"""Processes: their environment, the process group, and the check that all of them train the same thing."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from medvlm.train.stopping import StoppedByOther

Told = TypeVar("Told")

TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others: longer than any save, shorter than a night lost to a dead rank."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among the others; ``local_rank`` counts inside one machine."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> Literal["cpu", "cuda"]:
    """The device type to train on.

    Raises:
        ValueError: CUDA is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "engine.device is 'cuda', but torch sees no CUDA device; use device: auto or cpu, or install a torch "
            "built for the driver of this machine"
        )
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def prepare_environment(device: Literal["cpu", "cuda"]) -> None:
    """Set what DeepSpeed reads from the environment; must run before ``deepspeed`` is imported.

    DS_ACCELERATOR says which device it uses. TORCH_EXTENSIONS_DIR, where it compiles operators, gets a folder for
    each Python environment unless it is set: the default is shared by all environments of a user, and operators
    compiled against another torch crash. The folder of the interpreter goes on PATH, because that is where ninja is.
    """
    os.environ["DS_ACCELERATOR"] = device
    if not os.environ.get("TORCH_EXTENSIONS_DIR"):
        name = hashlib.sha256(f"{sys.prefix} {torch.__version__}".encode()).hexdigest()[:16]
        os.environ["TORCH_EXTENSIONS_DIR"] = str(Path.home() / ".cache" / "medvlm" / "torch_extensions" / name)
    programs = str(Path(sys.prefix) / "bin")
    if programs not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join(filter(None, [programs, os.environ.get("PATH", "")]))


def connect(wanted: Literal["auto", "cpu", "cuda"], timeout: timedelta = TIMEOUT) -> Ranks:
    """Join the process group that torchrun describes in the environment, or make one of a single process.

    May be called again; the group is joined once. NCCL on CUDA, gloo on CPU.

    Args:
        timeout: how long a rank waits for the others.

    Raises:
        ValueError: no such device, or a launcher that set only a part of the environment.
    """
    device = choose_device(wanted)
    prepare_environment(device)
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    given = [name for name in names if name in os.environ]
    launched = any(name in given for name in names[:2])  # LOCAL_RANK alone: DeepSpeedEngine sets it
    if launched and len(given) < len(names):
        missing = [name for name in names if name not in os.environ]
        raise ValueError(
            f"the environment sets {', '.join(given)} but not {', '.join(missing)}; start through torchrun, or unset "
            "them to train in one process"
        )
    rank, world_size, local_rank = (int(os.environ.get(n, d)) for n, d in zip(names, ("0", "1", "0"), strict=True))
    if device == "cuda":
        torch.cuda.set_device(local_rank)
    if not dist.is_initialized():
        backend = "nccl" if device == "cuda" else "gloo"
        if launched:
            dist.init_process_group(backend, timeout=timeout)
        else:
            # A store in this process: no port to clash with another training on the machine.
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
    chosen = torch.device("cuda", local_rank) if device == "cuda" else torch.device("cpu")
    return Ranks(rank=rank, world_size=world_size, local_rank=local_rank, device=chosen)


def disconnect() -> None:
    """Leave the process group; nothing happens when there is none."""
    if dist.is_initialized():
        dist.destroy_process_group()


def sum_over_ranks(values: Tensor, device: torch.device) -> Tensor:
    """Element-wise sum of ``values`` (any shape) over ranks, in float64 (CUDA, CPU), on the device it came from."""
    total = values.detach().to(device=device, dtype=torch.float64)
    if total.data_ptr() == values.data_ptr():
        total = total.clone()
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(total)
    return total.to(values.device)


def of_all_ranks(mine: Told) -> list[Told]:
    """What each rank calls ``mine``, in the order of ranks; all ranks must call it. Pickled: for few small objects."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [mine]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, mine)
    return gathered


def raise_together(problem: Exception | None, device: torch.device) -> None:
    """Raise on all ranks when any rank has a ``problem``; all ranks must call it.

    A rank that raises alone leaves the others waiting in their next collective operation until the timeout.

    Raises:
        Exception: ``problem`` itself where there is one; elsewhere a StoppedByOther that names the ranks.
    """
    if dist.is_initialized() and dist.get_world_size() > 1:
        flags = torch.zeros(dist.get_world_size(), device=device)
        flags[dist.get_rank()] = float(problem is not None)
        dist.all_reduce(flags)
        if problem is None and flags.any():
            ranks = ", ".join(str(rank) for rank in flags.nonzero().flatten().tolist())
            raise StoppedByOther(f"stopped because rank {ranks} did; its message says why")
    if problem is not None:
        raise problem


def check_same_on_all_ranks(name: str, text: str, device: torch.device) -> None:
    """Raise, on every rank, unless ``text`` is the same on all of them. All ranks must call it.

    Args:
        name: what ``text`` is, for the message: "configuration", "data".

    Raises:
        ValueError: names the ranks that differ from rank 0.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    mine = torch.tensor(list(hashlib.sha256(text.encode()).digest()), dtype=torch.uint8, device=device)
    digests = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(digests, mine)
    differ = [rank for rank, digest in enumerate(digests) if not torch.equal(digest, digests[0])]
    if differ:
        raise ValueError(
            f"the {name} of rank {', '.join(map(str, differ))} is not that of rank 0; start all ranks from the same "
            "code, configuration file, overrides and data"
        )
