"""Processes that share one evaluation: who asks what, where they meet, and how they end together.

    torchrun --nproc_per_node=4 -m medvlm.eval.run --model CHECKPOINT --task vqa_rad --out runs/vqa_rad

They talk over gloo, with or without GPUs, and of nothing but whether each is well; answers go through the run folder,
which must therefore lie where all of them see it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

Made = TypeVar("Made")

JOIN = timedelta(minutes=10)
"""How long a process waits for the others to start."""
WAIT = timedelta(days=14)
"""How long it then waits for them to answer. One that ended is noticed at once, because its connections close."""
LOOK_S = 0.5


class OtherRankEnded(RuntimeError):
    """Another process had an error, or is gone; its own message says why."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those that share the asking.

    Attributes:
        rank, world_size: which, and of how many.
        local_rank: which on its machine: its GPU.
        group: of torch.distributed; None: alone.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    group: Any = None

    @property
    def first(self) -> bool:
        """Whether this process writes what only one may write."""
        return self.rank == 0

    def asks(self, request_id: str) -> bool:
        """Whether a request is this process's; follows from its name, so from no order."""
        return int(request_id, 16) % self.world_size == self.rank

    def device(self, wanted: str | None) -> str | None:
        """``wanted``, with the number of this process's own GPU where several share a machine's."""
        if self.world_size > 1 and (wanted == "cuda" or (wanted is None and torch.cuda.is_available())):
            return f"cuda:{self.local_rank}"
        return wanted

    def together(self, work: Callable[[], Made], *, waiting: Callable[[], None] | None = None) -> Made:
        """Do ``work`` on every process; nobody goes on before all are done.

        Args:
            waiting: called now and then while this process waits for the others.

        Raises:
            OtherRankEnded: ``work`` failed on another process, or that process is gone.
        """
        if self.group is None:
            return work()
        try:
            made = work()
        except Exception:
            with suppress(OtherRankEnded):  # what is wrong here is what a person must read
                self._meet(1)
            raise
        found = self._meet(0, waiting)
        failed = [str(rank) for rank, problem in enumerate(found) if problem]
        if failed:
            raise OtherRankEnded(f"process {', '.join(failed)} stopped; its own message says why")
        return made

    def by_first(self, work: Callable[[], Made]) -> Made | None:
        """Do ``work`` on the first process only, while the others wait; None on these."""
        return self.together(lambda: work() if self.first else None)

    def same(self, what: str, text: str) -> None:
        """Raise on all processes unless ``text`` is the same on each.

        Raises:
            ValueError: it is not; the processes were started from other arguments or data.
        """
        if self.group is None:
            return
        numbers = self._meet(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big"))
        differ = [str(rank) for rank, number in enumerate(numbers) if number != numbers[0]]
        if differ:
            raise ValueError(
                f"the {what} of process {', '.join(differ)} differs from that of process 0; start all of them with the "
                "same code, arguments and data"
            )

    def _meet(self, number: int, waiting: Callable[[], None] | None = None) -> list[int]:
        """What each process says, when all have said it."""
        mine = torch.tensor([number], dtype=torch.int64)
        every = [torch.zeros_like(mine) for _ in range(self.world_size)]
        try:
            handle = dist.all_gather(every, mine, group=self.group, async_op=True)
            while waiting is not None and not handle.is_completed():
                waiting()
                time.sleep(LOOK_S)
            handle.wait()
        except RuntimeError as error:
            raise OtherRankEnded(
                "another process is gone; its own message, or the system's (out of memory?), says why. What was "
                "answered is kept: start the same command again"
            ) from error
        return [int(one) for one in every]


ALONE = Ranks()


@contextmanager
def launched() -> Iterator[Ranks]:
    """The processes that a launcher such as torchrun has started; ALONE without one.

    Raises:
        ValueError: a launcher that set only a part of the environment.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if not any(name in os.environ for name in names[:2]) or os.environ.get("WORLD_SIZE") == "1":
        yield ALONE
        return
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise ValueError(
            f"the launcher set a part of {', '.join(names)} but not {', '.join(missing)}; start through torchrun, or "
            "unset them to evaluate in one process"
        )
    # Two groups, because the time to wait for a start is not the time to wait for answers.
    dist.init_process_group("gloo", timeout=JOIN)
    try:
        yield Ranks(
            rank=dist.get_rank(),
            world_size=dist.get_world_size(),
            local_rank=int(os.environ["LOCAL_RANK"]),
            group=dist.new_group(backend="gloo", timeout=WAIT),
        )
    finally:
        dist.destroy_process_group()
