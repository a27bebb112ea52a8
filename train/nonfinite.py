"""Steps whose loss or gradient is no number: left out, written down with their samples, and too many of them stop."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from medvlm.data_recipes.manifest import write_atomic
from medvlm.model.batch import PackedBatch
from medvlm.train.distributed import of_all_ranks
from medvlm.train.engine import Engine

SHARE = 0.01
"""Of the steps of a stage: most that may be left out, where that is more than the limit in a row."""


def not_finite(norm: float) -> FloatingPointError:
    """What an engine raises instead of an update."""
    return FloatingPointError(f"the gradient norm is {norm}")


def spoiled(loss: Tensor) -> Tensor:
    """``loss`` times 1, or times NaN when it is not finite.

    A loss that is not finite may have a finite gradient. Multiplied so it has none, on any rank after gradients are
    summed, so that all ranks leave out the same step without asking each other. Nothing waits for the device.
    """
    value = loss.detach()
    return loss * torch.where(value.isfinite(), torch.ones_like(value), torch.full_like(value, math.nan))


@dataclass(kw_only=True)
class Skipped:
    """The steps of a stage that were left out.

    Attributes:
        path: JSON lines of them, written by rank 0.
        limit: most in a row; one more stops the training. In all there may be as many, or SHARE of all steps.
        steps: of the stage.
        total, in_a_row: so far; part of the saved state.
    """

    path: Path
    stage: str
    limit: int
    steps: int
    total: int = 0
    in_a_row: int = 0
    _last: int = field(default=-1)

    def state_dict(self) -> dict[str, int]:
        """What a resume needs to count on."""
        return {"total": self.total, "in_a_row": self.in_a_row, "last": self._last}

    def load_state_dict(self, state: dict[str, int], *, start: int, rank: int) -> None:
        """Go on after ``start`` steps; lines of later ones, which will be taken again, are removed."""
        self.total, self.in_a_row, self._last = state["total"], state["in_a_row"], state["last"]
        self.forget_after(start, rank=rank)

    def forget_after(self, start: int, *, rank: int) -> None:
        """Remove the lines of steps after ``start``."""
        if rank == 0 and self.path.is_file():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= start]
            write_atomic(self.path, "".join(line + "\n" for line in kept))

    def take(
        self, engine: Engine, step: int, packs: Iterable[PackedBatch], suspects: list[str], problem: FloatingPointError
    ) -> None:
        """Note that step number ``step`` (from 1) was left out on all ranks; all ranks must call it.

        Args:
            suspects: samples of the packs of this rank whose loss was not finite.

        Raises:
            FloatingPointError: too many, on all ranks.
        """
        self.in_a_row = self.in_a_row + 1 if self._last >= step - 1 else 1  # a step may have several updates
        self.total, self._last = self.total + 1, step
        mine = ([name for pack in packs for name in pack.sample_ids], suspects)
        told = of_all_ranks(mine)
        names, bad = (sorted({name for part in told for name in part[which]}) for which in (0, 1))
        where = f"{problem} at step {step - 1} of stage {self.stage!r}"
        named = f"the loss of a pack with {bad} was not finite" if bad else "no single loss was not finite"
        said = f"{where}; {named}; its samples: {names}"
        if engine.rank == 0:
            row = {"stage": self.stage, "step": step, "reason": str(problem), "suspects": bad, "samples": names}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        if self.in_a_row > self.limit or self.total > max(self.limit, math.ceil(SHARE * self.steps)):
            raise FloatingPointError(
                f"{said}. Left out so far: {self.total} steps, {self.in_a_row} in a row; nonfinite_limit is "
                f"{self.limit}. See {self.path}; lower the learning rate, or take the samples out"
            )
        if engine.rank == 0:
            print(f"[{self.stage}] step {step} is left out: {said}", file=sys.stderr, flush=True)
