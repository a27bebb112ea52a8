"""A function over many items in worker processes: in order, a few at a time, so that nothing piles up in memory."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def in_order(
    function: Callable[[In], Out], items: Iterable[In], *, workers: int = 1, at_once: int = 8
) -> Iterator[tuple[In, Out]]:
    """(item, result) of each item.

    Args:
        function: of a module, so that other processes can import it.
        workers: processes; 1 works in this one.
        at_once: items that a worker gets at a time.
    """
    if workers <= 1:
        for item in items:
            yield item, function(item)
        return
    # spawn: a forked child of a process that runs threads (torch, FFmpeg) can hang.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_leave_interrupts_to_the_parent)
    waiting: deque[tuple[list[In], Future[list[Out]]]] = deque()
    source = iter(items)
    try:
        while True:
            while len(waiting) < 4 * workers and (part := list(islice(source, at_once))):
                waiting.append((part, pool.submit(_apply, function, part)))
            if not waiting:
                break
            part, future = waiting.popleft()
            yield from zip(part, future.result(), strict=True)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _apply(function: Callable[[In], Out], items: list[In]) -> list[Out]:
    return [function(item) for item in items]


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
