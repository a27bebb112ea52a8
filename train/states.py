"""The saved states of a stage: written from the loop, found again at a start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medvlm.data_recipes.loader import Loader
from medvlm.train.checkpoint import check_checkpoint, latest_checkpoint, save_checkpoint
from medvlm.train.engine import Engine


@dataclass(frozen=True, kw_only=True)
class States:
    """The saved states of one stage."""

    folder: Path
    fingerprints: dict[str, str]
    keep: int

    def load(self, engine: Engine, loader: Loader) -> int:
        """Load the newest state, when there is one; return the steps that were done."""
        newest = latest_checkpoint(self.folder)
        if newest is None:
            return 0
        check_checkpoint(newest, self.fingerprints)
        engine.load_state(newest.path)
        loader.load_state_dict(newest.metadata["loader"])
        return newest.step

    def save(self, engine: Engine, loader: Loader, step: int) -> None:
        """Save after ``step`` steps; all ranks must call it."""
        save_checkpoint(
            self.folder, step, engine.save_state, fingerprints=self.fingerprints,
            metadata={"loader": loader.state_dict()}, keep=self.keep, rank=engine.rank, barrier=engine.barrier,
        )  # fmt: skip
