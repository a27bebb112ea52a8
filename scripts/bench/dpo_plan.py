"""A plan whose packs hold the rows of a manifest in order: two trainers see the same pairs in the same steps."""

from __future__ import annotations

import threading
from collections.abc import Generator

from medvlm.data_recipes.lengths import Lengths
from medvlm.data_recipes.mixture import Mixture
from medvlm.data_recipes.pack_plan import PackPlan, Position
from medvlm.data_recipes.rendering import Renderer
from medvlm.data_recipes.rows import Joined


class InOrder(PackPlan):
    """Step n has the rows from n * pairs on, in one pack, however large."""

    def __init__(self, rows: Joined, renderer: Renderer, *, pairs: int, steps: int) -> None:
        super().__init__(
            mixture=Mixture(sizes=(len(rows),), weights=(1.0,), seed=0),
            lengths=Lengths(rows, renderer.length),
            tokens_per_pack=2**20,
            patches_per_pack=2**20,
        )
        self.pairs, self.steps = pairs, steps

    def packs(
        self, start: Position, stop: threading.Event | None = None
    ) -> Generator[tuple[Position, list[int]], None, None]:
        for number in range(start.packs, self.steps):
            yield Position(packs=number + 1), list(range(number * self.pairs, (number + 1) * self.pairs))
