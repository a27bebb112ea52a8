"""Packs for (position, rank): a pure function of seed, lengths and budgets, so that resume is a few integers."""

from __future__ import annotations

import queue
import signal
import threading
import zlib
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch
import torch.multiprocessing  # tensors then go between processes through shared memory

from medvlm.data_recipes.balance import deal
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.pack_plan import PackPlan, Position
from medvlm.data_recipes.packing import collate
from medvlm.data_recipes.quarantine import Quarantine
from medvlm.data_recipes.rendering import Renderer
from medvlm.data_recipes.rows import Rows
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.worker_processes import end_with_parent
from medvlm.model.batch import PackedBatch
from medvlm.model.processing import PatchedVisual, Rendered


@dataclass(frozen=True, kw_only=True)
class PackReader:
    """Renders and collates the samples of one pack; goes to other processes.

    Attributes:
        tokens_per_pack, patches_per_pack: what the pack was planned for: a header that lies is found here.
    """

    rows: Rows
    renderer: Renderer
    tokens_per_pack: int
    patches_per_pack: int

    def load(self, members: Sequence[int]) -> tuple[PackedBatch, list[BadSample]]:
        """The pack, and what is missing from it because its pixels cannot be read after all.

        What fails is left out and never replaced; every process and every later run leaves out the same. A pack of
        which nothing is left holds two sides of one token without loss, because all ranks must take part in a step.

        Raises:
            RuntimeError: the samples are larger than they were measured.
        """
        failed: list[BadSample] = []
        rendered: list[tuple[str, Sequence[Rendered]]] = []
        rows: list[Sample] = []
        shown: dict[str, PatchedVisual] = {}
        for index in members:
            row = self.rows.row(index)
            try:
                if isinstance(row, BadSample):
                    raise row
                rendered.append((row.sample_id, self.renderer.sides(row, shown)))
                rows.append(row)
            except BadSample as bad:
                failed.append(bad.bare())
        batch = collate(rendered or [("nothing could be read", [self._nothing()] * 2)], rows)
        batch.check(visual_token_id=self.renderer.processor.visual_token_id)
        if len(batch.tokens) > self.tokens_per_pack or len(batch.patches) > self.patches_per_pack:
            raise RuntimeError(
                f"the pack of samples {batch.sample_ids} has {len(batch.tokens)} tokens and {len(batch.patches)} "
                f"patches, over the {self.tokens_per_pack} and {self.patches_per_pack} that it was planned for: a file "
                "has changed since it was measured, or its header says another size than its pixels have; remove the "
                "folder lengths/ of the run and start again"
            )
        return batch, failed

    def _nothing(self) -> Rendered:
        token = self.renderer.processor.tokenizer.eos_token_id
        return Rendered(
            tokens=np.array([0 if token is None else token], np.int64),
            supervised=np.zeros(1, bool),
            positions=np.zeros(1, np.int64),
            visuals=(),
        )


class Loader:
    """Gives each rank the packs of each step; reads ahead while the model computes.

    A step takes the next world_size * packs_per_step packs of the plan, so that any world size with the same product
    sees the same packs in a step, and a training that goes on with another number of processes sees each sample as
    often as it would have. They are dealt to ranks by what they cost, so that no rank waits long for another.

    Args:
        rows: the samples that the plan counts.
        workers: processes that read, decode and render; 0: a thread of this one. Packs come in the same order, and are
            the same, for any number.
        ahead: packs that are read ahead.
        quarantine: what is left out of the training; see ``left_out``.

    Attributes:
        position: where the step after the last one that was taken begins.
        left_out: samples that turned out unreadable in the packs that this rank took last. Whoever takes a step hands
            them to the quarantines of all ranks, so that all count the same.
        order: checksum of the packs of all ranks up to ``position``: the same on all ranks, or they have planned
            different packs.
    """

    def __init__(
        self,
        rows: Rows,
        plan: PackPlan,
        renderer: Renderer,
        *,
        packs_per_step: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        ahead: int = 8,
        quarantine: Quarantine | None = None,
    ) -> None:
        self.plan = plan
        self.packs_per_step, self.rank, self.world_size = packs_per_step, rank, world_size
        self.workers, self.ahead = workers, max(ahead, workers)
        self.quarantine = Quarantine() if quarantine is None else quarantine
        self.reader = PackReader(
            rows=rows, renderer=renderer, tokens_per_pack=plan.tokens_per_pack, patches_per_pack=plan.patches_per_pack
        )
        self.position, self.order = Position(), 0
        self.left_out: list[BadSample] = []

    def state_dict(self) -> dict[str, int]:
        """Where the step after the last one that was taken begins; the same on all ranks."""
        return self.position.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where ``state_dict`` was called, with any number of ranks and workers.

        Raises:
            ValueError: by a release that planned packs in another way.
        """
        self.position = Position.from_state(state)

    def load(self, members: Sequence[int]) -> PackedBatch:
        """One pack, read here and now."""
        batch, self.left_out = self.reader.load(members)
        return batch

    def steps(self) -> Generator[list[PackedBatch], None, None]:
        """The packs of this rank, step by step from ``position``; endless.

        An error while reading ahead is raised here, at the step that needed the sample.

        Raises:
            ChildProcessError: a worker was killed.
        """
        ready: queue.Queue[Future | tuple[Position, int] | BaseException] = queue.Queue(maxsize=self.ahead)
        stop = threading.Event()

        def put(item: Future | tuple[Position, int] | BaseException) -> None:
            while not stop.is_set():
                try:
                    ready.put(item, timeout=0.2)
                    return
                except queue.Full:
                    continue

        def read_ahead(read: Callable[[Sequence[int]], Future]) -> None:
            packs, order = self.plan.packs(self.position, stop), 0
            step: list[list[int]] = []
            try:
                for after, members in packs:
                    if stop.is_set():
                        return
                    order = zlib.crc32(repr(members).encode(), order)
                    step.append(members)
                    if len(step) < self.world_size * self.packs_per_step:
                        continue
                    hands = deal(self.plan.costs(step), self.world_size)
                    # Of the same packs a rank that has measured other sizes would take other ones.
                    order = zlib.crc32(repr(hands).encode(), order)
                    for number in hands[self.rank]:
                        put(read(step[number]))
                    put((after, order))
                    step = []
            except BaseException as error:  # noqa: BLE001 (handed to the training thread, which raises it)
                put(error)
            finally:
                packs.close()

        with self._pool() as pool:
            read = self._here if pool is None else lambda members: pool.submit(_read, list(members))
            thread = threading.Thread(target=read_ahead, args=(read,), name="medvlm-loader", daemon=True)
            thread.start()
            try:
                step: list[PackedBatch] = []
                left_out: list[BadSample] = []
                while True:
                    item = ready.get()
                    if isinstance(item, BaseException):
                        raise item
                    if isinstance(item, tuple):
                        self.position, self.order = item
                        self.left_out = left_out
                        yield step
                        step, left_out = [], []
                        continue
                    batch, failed = item.result()
                    left_out += failed
                    step.append(batch)
            except BrokenExecutor as error:
                raise ChildProcessError(
                    "a process that reads data was killed, as happens when the memory of the machine or its shared "
                    "memory (/dev/shm, which containers limit: docker run --shm-size) is full; use fewer data.workers, "
                    "or smaller packs"
                ) from error
            finally:
                stop.set()
                thread.join()
                if pool is not None:
                    pool.shutdown(wait=True, cancel_futures=True)

    def _pool(self) -> Executor | nullcontext[None]:
        if not self.workers:
            return nullcontext()
        # A fork of this process, which runs threads, can hang; a fork server imports torch once for all workers.
        context = get_context("forkserver")
        context.set_forkserver_preload(["medvlm.data_recipes.loader"])
        return ProcessPoolExecutor(self.workers, mp_context=context, initializer=_start, initargs=(self.reader,))

    def _here(self, members: Sequence[int]) -> Future:
        done: Future = Future()
        try:
            done.set_result(self.reader.load(members))
        except Exception as error:  # noqa: BLE001 (raised by the step that needs the pack)
            done.set_exception(error)
        return done


_reader: PackReader | None = None
"""Of a worker process: what it reads with."""


def _start(reader: PackReader) -> None:
    global _reader
    # Ctrl-C goes to all processes of a terminal; the training process ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    torch.set_num_threads(1)  # as many workers as cores; threads of each would only wait for one another
    _reader = reader


def _read(members: list[int]) -> tuple[PackedBatch, list[BadSample]]:
    assert _reader is not None
    return _reader.load(members)


def sample_of(rows: Rows, index: int) -> Sample:
    """Row ``index``, which is known to be good.

    Raises:
        BadSample: it is not.
    """
    row = rows.row(index)
    if isinstance(row, BadSample):
        raise row
    return row
