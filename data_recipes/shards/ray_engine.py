"""All shards by Ray Data, on one machine or a cluster; every node must reach manifests, visuals and output alike."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch

from medvlm.data_recipes.shards.build import Job, Record, build_shard


def ray_engine(address: str | None = None) -> Callable[[Job, range, int], Iterator[Record]]:
    """An engine for shard.build: one task of one CPU for each shard, ``workers`` of them at once.

    Ray runs a task again whose node was lost; a task that raises ends the build, as with processes.

    Args:
        address: of a running cluster; None starts one on this machine with as many CPUs as there are workers.

    Raises:
        ImportError: Ray Data is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(
            f"--engine ray needs Ray Data ({error}); install it: pip install 'ray[data]>=2.51'"
        ) from error

    def run(job: Job, numbers: range, workers: int) -> Iterator[Record]:
        started = not ray.is_initialized()
        if started:
            cpus = workers if address is None else None  # those of a cluster are its own
            ray.init(address=address, num_cpus=cpus, log_to_driver=False, logging_level=logging.ERROR)
        try:
            ray.data.DataContext.get_current().enable_progress_bars = False  # medvlm shows its own
            logging.getLogger("ray.data").setLevel(logging.ERROR)
            # The order of rows is stored once, not with each of thousands of tasks.
            shared = ray.put(job)

            def work(row: dict[str, Any]) -> dict[str, Any]:
                torch.set_num_threads(1)
                return {"record": build_shard(ray.get(shared), int(row["id"])).to_text()}

            tasks = ray.data.range(len(numbers), override_num_blocks=max(1, len(numbers)))
            done = tasks.map(work, num_cpus=1, compute=ray.data.TaskPoolStrategy(size=workers))
            for row in done.iter_rows():
                yield Record.from_text(row["record"])
        finally:
            if started:
                ray.shutdown()

    return run
