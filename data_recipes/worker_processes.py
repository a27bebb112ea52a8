"""Worker processes that never take Ctrl-C and never outlive the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
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


def pool_of(workers: int) -> ProcessPoolExecutor | None:
    """A pool for ``in_order``; None for one worker, which is this process."""
    if workers <= 1:
        return None
    # spawn: a forked child of a process that runs threads (torch, FFmpeg) can hang.
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=end_with_parent)


def in_order(
    pool: ProcessPoolExecutor | None, workers: int, function: Callable[[In], Out], items: Iterable[In], *, each: int = 4
) -> Iterator[tuple[In, Out]]:
    """(item, result) of each item, in their order; only a few items are taken ahead of the results.

    Args:
        function: of a module, so that other processes can import it.
        each: items that a worker gets at a time.
    """
    if pool is None:
        for item in items:
            yield item, function(item)
        return
    waiting: deque[tuple[list[In], Future[list[Out]]]] = deque()
    source = iter(items)
    while True:
        while len(waiting) < 4 * workers and (part := list(islice(source, each))):
            with without_interrupts():
                waiting.append((part, pool.submit(_apply, function, part)))
        if not waiting:
            return
        part, future = waiting.popleft()
        yield from zip(part, future.result(), strict=True)


def _apply(function: Callable[[In], Out], items: list[In]) -> list[Out]:
    return [function(item) for item in items]


def end_with_parent() -> None:
    """To be called in a worker: it ends when the process that started it does, which else it would await for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Processes that start in here never see Ctrl-C, which a terminal sends to all of them; this one sees it after."""
    ensure_running()  # it would lift the block when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
