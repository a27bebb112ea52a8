"""A function over many items in worker processes: in order, a few at a time, so that nothing piles up in memory."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from multiprocessing.resource_tracker import ensure_running
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
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    waiting: deque[tuple[list[In], Future[list[Out]]]] = deque()
    source = iter(items)
    try:
        while True:
            while len(waiting) < 4 * workers and (part := list(islice(source, at_once))):
                with _without_interrupts():
                    waiting.append((part, pool.submit(_apply, function, part)))
            if not waiting:
                break
            part, future = waiting.popleft()
            yield from zip(part, future.result(), strict=True)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def enough(workers: int, items: int, each: int) -> int:
    """At most ``workers``, and no more than have ``each`` items: a process takes seconds to import the libraries."""
    return max(1, min(workers, items // each))


def _apply(function: Callable[[In], Out], items: list[In]) -> list[Out]:
    return [function(item) for item in items]


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes that start in here never see Ctrl-C, which a terminal sends to all of them; this one sees it after."""
    ensure_running()  # it would lift the block when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
