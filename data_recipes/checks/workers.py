"""A function over many items in worker processes: in order, a few at a time, so that nothing piles up in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from medvlm.data_recipes import worker_processes
from medvlm.data_recipes.worker_processes import In, Out


def in_order(
    function: Callable[[In], Out], items: Iterable[In], *, workers: int = 1, at_once: int = 8
) -> Iterator[tuple[In, Out]]:
    """(item, result) of each item, from processes that end with this iterator.

    Args:
        function: of a module, so that other processes can import it.
        workers: processes; 1 works in this one.
        at_once: items that a worker gets at a time.
    """
    pool = worker_processes.pool_of(workers)
    try:
        yield from worker_processes.in_order(pool, workers, function, items, each=at_once)
    finally:
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)


def enough(workers: int, items: int, each: int) -> int:
    """At most ``workers``, and no more than have ``each`` items: a process takes seconds to import the libraries."""
    return max(1, min(workers, items // each))
