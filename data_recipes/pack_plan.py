"""Which samples stand in which pack, for ever: rounds of the mixture, packed window by window."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

import numpy as np

from medvlm.data_recipes.cost import COUNT_TOKENS, Cost
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.lengths import Lengths
from medvlm.data_recipes.mixture import Mixture
from medvlm.data_recipes.packing import Limits, pack
from medvlm.data_recipes.window import WINDOW

VERSION = 2
"""Of the way in which samples become packs and packs are ordered: a position means nothing to another one."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a training has come; all integers, so that to resume is to read them.

    Attributes:
        round, window: of the mixture, and the part of it.
        pack: packs of this window that were taken.
        packs: packs that were taken since the beginning, by all ranks.
    """

    round: int = 0
    window: int = 0
    pack: int = 0
    packs: int = 0

    def state_dict(self) -> dict[str, int]:
        return {**asdict(self), "version": VERSION}

    @classmethod
    def from_state(cls, state: Mapping[str, int]) -> Position:
        """Of ``state_dict``.

        Raises:
            ValueError: it counts packs that were planned in another way.
        """
        numbers = dict(state)
        version = numbers.pop("version", 1)
        if version != VERSION:
            raise ValueError(
                f"the saved state counts packs of plan version {version}, and this release of medvlm plans them in "
                f"another way, version {VERSION}: samples would be lost or repeated; finish the stage with the release "
                "that began it, or start it anew in another output_dir"
            )
        return cls(**numbers)


class PackPlan:
    """A pure function of mixture, lengths and budgets: packs ``position``, and after it.

    A round of the mixture is cut into windows of ``window`` samples. Each is packed for itself. Its packs go round in
    the circle of ``packing.pack``, in which neighbours cost about the same, from a place drawn for each window: packs
    of one step are then alike for any number of ranks, and none comes early or late by rule. To start anywhere, one
    window is measured and packed, whatever came before it.

    Args:
        mixture: order of the samples.
        lengths: sizes of every sample.
        cost: what a sample costs; cost_per_pack: most of it in one pack, None: no limit.
        seen: called with the samples of each window that was measured.
        progress: called with (done, total) while samples of a window are measured.
    """

    def __init__(
        self,
        *,
        mixture: Mixture,
        lengths: Lengths,
        tokens_per_pack: int,
        patches_per_pack: int,
        cost: Cost = COUNT_TOKENS,
        cost_per_pack: float | None = None,
        window: int = WINDOW,
        seen: Callable[[np.ndarray], None] = lambda _: None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.mixture, self.lengths, self.window = mixture, lengths, window
        self.tokens_per_pack, self.patches_per_pack = tokens_per_pack, patches_per_pack
        self.limits = Limits(tokens=tokens_per_pack, patches=patches_per_pack, cost=cost_per_pack, weights=cost)
        self._seen, self.progress = seen, progress
        self._round: tuple[int, np.ndarray] | None = None

    def describe(self) -> list[object]:
        """What the order depends on besides the lengths, as plain JSON.

        Costs and the version of the plan are not in it: the one follows from the configuration, and the other is a part
        of every position.
        """
        return [asdict(self.mixture), self.tokens_per_pack, self.patches_per_pack, self.window]

    def costs(self, packs: Sequence[Sequence[int]]) -> list[float]:
        """What each of ``packs`` costs; their samples have been measured, or are measured now."""
        members = np.array([index for pack in packs for index in pack], np.int64)
        usable, sizes = self.lengths.columns(np.unique(members))
        cost = dict(zip(usable.tolist(), self.limits.weights.of(sizes).tolist(), strict=True))
        return [sum(cost.get(index, 0.0) for index in pack) for pack in packs]

    def samples(self, number: int, window: int) -> np.ndarray:
        """The samples of one window, in the order in which they are packed."""
        if self._round is None or self._round[0] != number:
            self._round = (number, self.mixture.round(number))
        return self._round[1][window * self.window : (window + 1) * self.window]

    def windows(self) -> int:
        """Windows of a round."""
        return -(-sum(self.mixture.shares) // self.window)

    def window_packs(self, number: int, window: int, stopped: Callable[[], bool] = lambda: False) -> list[list[int]]:
        """The packs of one window; samples that cannot be used are in none.

        Raises:
            CancelledError: ``stopped`` said so between two samples that were measured.
        """

        def measured(done: int, total: int) -> None:
            if stopped():
                raise CancelledError
            if self.progress is not None:
                self.progress(done, total)

        samples = self.samples(number, window)
        usable, sizes = self.lengths.columns(samples, measured)
        self._seen(samples)
        named = usable.tolist()
        packs = [[named[place] for place in members] for members in pack(sizes, self.limits)]
        start = int(np.random.default_rng([self.mixture.seed, 2, number, window]).integers(max(1, len(packs))))
        return packs[start:] + packs[:start]

    def round(self, number: int) -> Iterator[list[int]]:
        """All packs of one round."""
        for window in range(self.windows()):
            yield from self.window_packs(number, window)

    def packs(
        self, start: Position, stop: threading.Event | None = None
    ) -> Generator[tuple[Position, list[int]], None, None]:
        """Endless: (position after it, members) of each pack from ``start`` on; the next window is packed meanwhile.

        Args:
            stop: when set, a window is not measured to its end, and this raises CancelledError. Without it that
                happens when the iterator is closed: who leaves does not wait for a window that nobody will use.
        """
        closed = threading.Event()

        def submit(at: Position) -> Future[list[list[int]]]:
            return helper.submit(
                self.window_packs, at.round, at.window, lambda: closed.is_set() or (stop is not None and stop.is_set())
            )

        with ThreadPoolExecutor(1, thread_name_prefix="medvlm-plan") as helper:
            try:
                at, empty = start, 0
                coming = submit(at)
                while True:
                    packs = coming.result()
                    following = self._following(at)
                    coming = submit(following)
                    for members in packs[at.pack :]:
                        at = replace(at, pack=at.pack + 1, packs=at.packs + 1)
                        yield at, members
                    empty = 0 if packs else empty + 1
                    if empty > self.windows():
                        raise BadSample(
                            "no sample of a whole round can be used",
                            where="the training data",
                            mend="see quarantine.jsonl of the stage",
                        )
                    at = replace(following, packs=at.packs)
            finally:
                closed.set()

    def _following(self, at: Position) -> Position:
        last = at.window + 1 == self.windows()
        return Position(round=at.round + last, window=0 if last else at.window + 1)
