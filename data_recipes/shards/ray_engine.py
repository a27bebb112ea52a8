"""All shards by Ray Data, on one machine or a cluster; every node must reach manifests, visuals and output alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from medvlm.data_recipes.shards.build import Job, Record, build_shard


def ray_engine(address: str | None = None) -> Callable[[Job, range, int], Iterator[Record]]:
    """An engine for shard.build.

    Args:
        address: of a running cluster; None starts one on this machine with as many CPUs as there are workers.

    Raises:
        ImportError: Ray is not installed.
    """
    try:
        import ray.data
    except ImportError as error:
        raise ImportError(f"--engine ray needs Ray ({error}); install it: pip install 'medvlm[ray]'") from error

    def run(job: Job, numbers: range, workers: int) -> Iterator[Record]:
        started = not ray.is_initialized()
        if started:
            cpus = {} if address is not None else {"num_cpus": workers}
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **cpus)
        try:
            context = ray.data.DataContext.get_current()
            context.enable_progress_bars = False
            # The order of rows is stored once, not with each of thousands of tasks.
            shared = ray.put(job)

            def work(row: dict[str, Any]) -> dict[str, Any]:
                record = build_shard(ray.get(shared), int(row["id"]))
                return {"record": record.to_text()}

            tasks = ray.data.range(len(numbers), override_num_blocks=len(numbers))
            for row in tasks.map(work, num_cpus=1, concurrency=workers).iter_rows():
                yield Record.from_text(row["record"])
        finally:
            if started:
                ray.shutdown()

    return run
