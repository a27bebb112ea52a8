"""Packs for (step, rank): a pure function of seed, lengths and budgets, so that resume is one integer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from medvlm.data_recipes.mixture import Mixture
from medvlm.data_recipes.packing import Length, collate, pack
from medvlm.data_recipes.rendering import Renderer
from medvlm.data_recipes.sample import Sample
from medvlm.model.batch import PackedBatch


@dataclass(frozen=True, kw_only=True)
class PackPlan:
    """Which samples stand in which pack, for ever: rounds of the mixture, packed and shuffled.

    Attributes:
        mixture: order of the samples.
        lengths: cost of every sample of the sources laid end to end.
    """

    mixture: Mixture
    lengths: tuple[Length, ...]
    tokens_per_pack: int
    patches_per_pack: int

    def round(self, number: int) -> list[list[int]]:
        """Packs of one round, shuffled so that full and short packs mix."""
        packs = pack(self.lengths, self.mixture.round(number), self.tokens_per_pack, self.patches_per_pack)
        order = np.random.default_rng([self.mixture.seed, 2, number]).permutation(len(packs))
        return [packs[i] for i in order]

    def packs(self, start: int) -> Iterator[list[int]]:
        """Packs ``start``, ``start + 1``, ... of the endless sequence; only integers are computed on the way."""
        number = passed = 0
        while True:
            packs = self.round(number)
            yield from packs[max(0, start - passed) :]
            passed += len(packs)
            number += 1


class Loader:
    """Gives each rank the packs of each step; reads ahead in a thread while the model computes.

    Step s takes packs [s * world * packs_per_step, ...): they are dealt to ranks in turn, so that any world size with
    the same product sees the same packs in a step.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        plan: PackPlan,
        renderer: Renderer,
        *,
        packs_per_step: int,
        rank: int = 0,
        world_size: int = 1,
        ahead: int = 8,
    ) -> None:
        self.samples, self.plan, self.renderer = samples, plan, renderer
        self.packs_per_step, self.rank, self.world_size, self.ahead = packs_per_step, rank, world_size, ahead

    def load(self, members: Sequence[int]) -> PackedBatch:
        """Render and collate the samples of one pack."""
        chosen = [self.samples[index] for index in members]
        batch = collate([(sample.sample_id, self.renderer.sides(sample)) for sample in chosen])
        batch.check(visual_token_id=self.renderer.processor.visual_token_id)
        return batch

    def steps(self, start: int) -> Iterator[list[PackedBatch]]:
        """The packs of this rank for steps ``start``, ``start + 1``, ...; endless.

        An error in the reading thread is raised here, at the step that needed the sample.
        """
        ready: queue.Queue[PackedBatch | BaseException] = queue.Queue(maxsize=self.ahead)
        stop = threading.Event()

        def put(item: PackedBatch | BaseException) -> None:
            while not stop.is_set():
                try:
                    ready.put(item, timeout=0.2)
                    return
                except queue.Full:
                    continue

        def read_ahead() -> None:
            try:
                for number, members in enumerate(self.plan.packs(start * self.world_size * self.packs_per_step)):
                    if number % self.world_size == self.rank:
                        put(self.load(members))
                    if stop.is_set():
                        return
            except BaseException as error:  # noqa: BLE001 (handed to the training thread, which raises it)
                put(error)

        thread = threading.Thread(target=read_ahead, name="medvlm-loader", daemon=True)
        thread.start()
        try:
            while True:
                step: list[PackedBatch] = []
                while len(step) < self.packs_per_step:
                    item = ready.get()
                    if isinstance(item, BaseException):
                        raise item
                    step.append(item)
                yield step
        finally:
            stop.set()
            thread.join()
