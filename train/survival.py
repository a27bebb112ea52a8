"""What a stage needs to outlive signals, kills, full disks, numbers that are none, and ranks that hang."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from medvlm.data_recipes.loader import Loader
from medvlm.model.batch import PackedBatch
from medvlm.train.config import Curriculum, Stage, fingerprint
from medvlm.train.engine import Engine
from medvlm.train.nonfinite import Skipped
from medvlm.train.states import States
from medvlm.train.stopping import Stopped, Stopping
from medvlm.train.watchdog import Watchdog

NEWS = 3
"""Numbers that each rank adds to the sum of a step: a signal was heard; its part of a save is done; or has failed."""


class Survival:
    """Use it in a ``with`` block around the steps of a stage, after ``load``.

    Args:
        folder: of the stage.
        steps: of the stage.
        data: fingerprint of the data.
    """

    def __init__(
        self,
        curriculum: Curriculum,
        stage: Stage,
        *,
        folder: Path,
        steps: int,
        data: str,
        rank: int,
        world_size: int,
        stopping: Stopping,
    ) -> None:
        self.curriculum, self.stage, self.data = curriculum, stage, data
        self.rank, self.world_size, self.stopping = rank, world_size, stopping
        self.stops = False
        self.skipped = Skipped(
            path=folder / "skipped.jsonl", stage=stage.name, limit=stage.nonfinite_limit, steps=steps
        )
        self.states = States(
            folder=folder / "state",
            fingerprints=self._fingerprints,
            keep=stage.keep_checkpoints,
            keep_every=stage.keep_every,
            background=curriculum.engine.save_async,
            metadata=self._metadata,
        )
        self.watchdog = Watchdog(
            folder / "heartbeats", rank=rank, world_size=world_size, minutes=curriculum.engine.hang_minutes
        )

    def load(self, engine: Engine, loader: Loader) -> int:
        """Load the newest state that can be read; return the steps that were done. All ranks must call it."""
        found = self.states.load(engine, loader)
        if found is None:
            self.skipped.forget_after(0, rank=self.rank)
            return 0
        if "skipped" in found.metadata:
            self.skipped.load_state_dict(found.metadata["skipped"], start=found.step, rank=self.rank)
        return found.step

    def __enter__(self) -> Survival:
        self.watchdog.__enter__()
        self.stopping.in_steps = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.in_steps = False
        self.states.close()
        self.watchdog.__exit__(kind, error, trace)

    def at(self, step: int, phase: str) -> None:
        """This rank has come to ``phase`` of ``step``, one of ``watchdog.PHASES``."""
        self.watchdog.at(step, phase)

    def news(self) -> list[float]:
        """NEWS numbers, summed over ranks for ``heard``."""
        return [float(self.stopping.asked is not None), *self.states.news()]

    def heard(self, engine: Engine, told: Sequence[float]) -> list[float]:
        """Act on the sums of ``news``, which end ``told``; return what stood before them. All ranks must call it.

        Raises:
            NotSaved: too many saves have failed, on all ranks.
        """
        stops, done, failed = told[-NEWS:]
        self.stops = bool(stops)
        self.states.heard(engine, done, failed)
        return list(told[:-NEWS])

    def left_out(
        self, engine: Engine, step: int, packs: Sequence[PackedBatch], suspects: list[str], problem: FloatingPointError
    ) -> float:
        """Note that ``step`` moved nothing; return the norm of its gradient. All ranks must call it.

        Raises:
            FloatingPointError: there are too many of them, on all ranks.
        """
        try:
            self.skipped.take(engine, step, packs, suspects, problem)
        except FloatingPointError:
            self.states.finish(engine)
            raise
        return math.nan

    def save(self, engine: Engine, loader: Loader, step: int, *, last: bool) -> None:
        """Save after ``step``, when it is the ``last`` one, or due, or a signal was heard. All ranks must call it.

        Raises:
            Stopped: a signal was heard, and the state is saved.
            NotSaved: it is not, on all ranks.
        """
        every = self.stage.save_every
        if not (last or self.stops or (every and step % every == 0)):
            return
        self.at(step, "saving")
        self.states.save(engine, loader, step, final=last or self.stops)
        if self.stops:
            raise Stopped(
                f"stopped by {self.stopping.asked or 'a signal to another rank'}; the state after step {step} of stage "
                f"{self.stage.name!r} is saved: the same command goes on from there"
            )

    def _metadata(self) -> dict[str, Any]:
        return {
            "skipped": self.skipped.state_dict(),
            "world_size": self.world_size,
            "packs_per_step": packs_per_step(self.curriculum, self.stage),
        }

    def _fingerprints(self, metadata: Mapping[str, Any]) -> dict[str, str]:
        """Of a state with this metadata, if it belonged to this training.

        Raises:
            ValueError: its steps took another number of packs.
        """
        had = metadata.get("packs_per_step", packs_per_step(self.curriculum, self.stage))
        before = metadata["world_size"] * had[self.stage.name]
        now = self.world_size * self.stage.packs_per_step
        if before != now:
            fits, rest = divmod(before, self.world_size)
            mend = (
                f"set stages.{self.stage.name}.packs_per_step={fits}"
                if not rest
                else f"start a number of processes that divides {before}, with packs_per_step = {before} / processes"
            )
            raise ValueError(
                f"stage {self.stage.name!r} was saved with {before} packs a step ({metadata['world_size']} processes x "
                f"{had[self.stage.name]}), now there are {now} ({self.world_size} x {self.stage.packs_per_step}), so "
                f"that samples would be lost or repeated; {mend}"
            )
        return {"configuration": fingerprint(self.curriculum, self.stage.name, had), "data": self.data}


def packs_per_step(curriculum: Curriculum, stage: Stage) -> dict[str, int]:
    """Stage -> packs that each process takes for a step, of the stages up to and including ``stage``."""
    until = curriculum.stages.index(stage) + 1
    return {s.name: s.packs_per_step for s in curriculum.stages[:until]}
