"""All shards by processes of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from multiprocessing.synchronize import Event

import torch

from medvlm.data_recipes.shards.build import Job, Record, build_shard
from medvlm.data_recipes.worker_processes import end_with_parent, without_interrupts

_job: Job | None = None
_stop: Event | None = None


def _start(job: Job, stop: Event) -> None:
    global _job, _stop
    _job, _stop = job, stop
    torch.set_num_threads(1)
    end_with_parent()


def _build(number: int) -> Record:
    assert _job is not None and _stop is not None
    return build_shard(_job, number, _stop.is_set)


def run_processes(job: Job, numbers: range, workers: int) -> Iterator[Record]:
    """Records of the shards ``numbers`` as they are finished, in any order.

    Closing the iterator stops every worker after the row it is at. Ctrl-C reaches every process of a terminal, but only
    this one takes it.

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
                    with without_interrupts():
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
