"""All shards by processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from multiprocessing.synchronize import Event

import torch

from medvlm.data_recipes.shards.build import Job, Record, Stopped, build_shard

_job: Job | None = None
_stop: Event | None = None


def _start(job: Job, stop: Event) -> None:
    global _job, _stop
    _job, _stop = job, stop
    torch.set_num_threads(1)
    # Ctrl-C reaches every process of the terminal; the parent decides, and tells through the event.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    # A worker whose parent was killed would wait for work for ever.
    parent.join()
    os._exit(1)


def _build(number: int) -> Record:
    assert _job is not None and _stop is not None
    return build_shard(_job, number, _stop.is_set)


def run_processes(job: Job, numbers: range, workers: int) -> Iterator[Record]:
    """Records of the shards ``numbers`` as they are finished, in any order.

    Closing the iterator (Ctrl-C) stops every worker after the row it is at.

    Raises:
        OSError: see build.build_shard; and any fault of a worker.
    """
    if workers <= 1:
        yield from (build_shard(job, number) for number in numbers)
        return
    context = get_context("spawn")  # a forked child of a process that runs threads (torch, FFmpeg) can hang
    stop = context.Event()
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(job, stop)) as pool:
        waiting: set[Future[Record]] = set()
        todo = iter(numbers)
        try:
            while True:
                for number in todo:
                    waiting.add(pool.submit(_build, number))
                    if len(waiting) >= 2 * workers:
                        break
                if not waiting:
                    return
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ready:
                    yield future.result()
        finally:
            stop.set()
            for future in waiting:
                future.cancel()


__all__ = ["Stopped", "run_processes"]
