"""The saved states of a stage: begun from the loop, written while it goes on, found again at a start."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from medvlm.data_recipes.loader import Loader
from medvlm.train.asynchronous import StateWriter
from medvlm.train.checkpoint import (
    Checkpoint,
    abandon_state,
    begin_folder,
    changed_file,
    check_belongs,
    commit_state,
    read_state,
    remove_old,
    remove_unfinished,
    set_damaged_aside,
    state_folder,
    state_folders,
)
from medvlm.train.distributed import of_all_ranks
from medvlm.train.engine import Engine
from medvlm.train.stopping import NotSaved

FAILURES = 3
"""Saves in a row that may fail before the training stops: what it would lose grows with each."""


@dataclass(kw_only=True)
class _InFlight:
    """A save that was begun: this rank's files, then, when all ranks have theirs, the manifest and the name."""

    step: int
    writer: StateWriter
    unfinished: Path
    target: Path
    metadata: dict[str, Any]
    thread: threading.Thread | None = None
    committing: bool = False
    problem: Exception | None = None

    def done(self) -> bool:
        return self.writer.done if not self.committing else self.thread is None or not self.thread.is_alive()

    def failed(self) -> Exception | None:
        return self.problem or self.writer.problem


class States:
    """The saved states of one stage.

    With ``background`` a save costs the step a copy to host memory; files are written by a thread of each rank. Ranks
    tell in the sum of the next steps (``news``, ``heard``) whether theirs are written, and rank 0 publishes the state
    when all are. One save is in flight at most: the next waits for it.

    A save that fails leaves the states before it as they are and is said; training goes on and tries again when the
    next is due. FAILURES in a row, or the last one of a stage, stop it.

    Args:
        fingerprints: of a state with this metadata, if it belonged to this training.
        keep: newest states that are kept; and those of every ``keep_every``-th step.
        metadata: what goes into each state besides the place of the loader.
    """

    def __init__(
        self,
        *,
        folder: Path,
        fingerprints: Callable[[Mapping[str, Any]], dict[str, str]],
        keep: int,
        keep_every: int | None = None,
        background: bool = True,
        metadata: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self.folder, self.fingerprints, self.keep, self.keep_every = folder, fingerprints, keep, keep_every
        self.background, self.metadata = background, metadata
        self.failures = 0
        self._flight: _InFlight | None = None

    # --- finding -------------------------------------------------------------------------------------------------

    def load(self, engine: Engine, loader: Loader) -> Checkpoint | None:
        """Load the newest state that can be read; None when there is no state. All ranks must call it.

        Damaged ones are said and set aside, by all ranks alike: rank 0 chooses, each rank reads a part of the files.

        Raises:
            ValueError: the state belongs to another training; or states are there, and none of them can be read.
        """
        passed: list[tuple[Path, str]] = []
        if engine.rank == 0:
            remove_unfinished(self.folder)
        while True:
            path = _from_rank_0(engine, _first(self.folder, [path for path, _ in passed]))
            if path is None:
                break
            found = read_state(path)
            if isinstance(found, Checkpoint):
                changed = changed_file(found, part=engine.rank, parts=engine.world_size)
                found = changed if changed is not None else found
            problems = [said for said in of_all_ranks(found) if isinstance(said, str)]
            if problems:
                passed.append((path, problems[0]))
                continue
            assert isinstance(found, Checkpoint)
            # States of older releases do not say it, and have a file of each rank.
            found.metadata.setdefault("world_size", len(list(path.glob("rank-*.pt"))))
            check_belongs(found, self.fingerprints(found.metadata))
            self._say_passed(engine, passed, found)
            engine.load_state(path)
            loader.load_state_dict(found.metadata["loader"])
            return found
        if passed:
            raise ValueError(
                f"no saved state in {self.folder} can be read: {'; '.join(problem for _, problem in passed)}. Bring "
                "one back from a copy, or remove the folder to train the stage from its start"
            )
        return None

    def _say_passed(self, engine: Engine, passed: Sequence[tuple[Path, str]], found: Checkpoint) -> None:
        if engine.rank == 0:
            for path, problem in passed:
                aside = set_damaged_aside(path)
                _say(
                    f"{problem}. This saved state is damaged and set aside as {aside.name}; training goes on from "
                    f"{found.path.name}, the one before it"
                )
        engine.barrier()

    # --- saving --------------------------------------------------------------------------------------------------

    def save(self, engine: Engine, loader: Loader, step: int, *, final: bool = False) -> None:
        """Save after ``step`` steps; all ranks must call it.

        Args:
            final: there will be no other one: wait for it, and raise when it fails.

        Raises:
            NotSaved: on all ranks.
        """
        self.finish(engine)
        target = state_folder(self.folder, step)
        unfinished = target.with_name(target.name + ".unfinished")
        problem: Exception | None = None
        if engine.rank == 0:
            try:
                begin_folder(target)
            except OSError as error:
                problem = error
        writer = StateWriter(background=self.background and not final)
        flight = _InFlight(
            step=step, writer=writer, unfinished=unfinished, target=target,
            metadata={"loader": loader.state_dict(), **self.metadata()}, problem=problem,
        )  # fmt: skip
        if _any(engine, problem):
            self._fail(engine, flight, final=final)
            return
        engine.save_state(unfinished, writer.take)
        writer.start()
        self._flight = flight
        if not writer.background:
            self.finish(engine, final=final)

    def news(self) -> tuple[float, float]:
        """(this rank has done its part of the save in flight, it has failed): summed over ranks for ``heard``."""
        if self._flight is None or not self._flight.done():
            return 0.0, 0.0
        failed = self._flight.failed() is not None
        return float(not failed), float(failed)

    def heard(self, engine: Engine, done: float, failed: float) -> None:
        """Go on with the save in flight by what all ranks have told; all ranks must call it, with the same numbers.

        Raises:
            NotSaved: it is the last of too many that failed, on all ranks.
        """
        flight = self._flight
        if flight is None:
            return
        if failed:
            self._settle(flight)
            self._fail(engine, flight)
        elif done == engine.world_size and not flight.committing:
            self._begin_commit(engine, flight)
        elif done == engine.world_size:
            self._succeed()

    def finish(self, engine: Engine, *, final: bool = False) -> None:
        """Wait for the save in flight; all ranks must call it.

        Raises:
            NotSaved: it failed, and is ``final`` or the last of too many.
        """
        flight = self._flight
        if flight is None:
            return
        self._settle(flight)
        if not flight.committing and not _any(engine, flight.failed()):
            self._begin_commit(engine, flight)
            self._settle(flight)
        if _any(engine, flight.failed()):
            self._fail(engine, flight, final=final)
        else:
            self._succeed()

    def close(self) -> None:
        """Wait for the threads of this rank, whatever became of the others."""
        if self._flight is not None:
            self._settle(self._flight)

    def _settle(self, flight: _InFlight) -> None:
        flight.writer.wait()
        if flight.thread is not None:
            flight.thread.join()

    def _begin_commit(self, engine: Engine, flight: _InFlight) -> None:
        flight.committing = True
        if engine.rank == 0:
            flight.thread = threading.Thread(target=self._commit, args=(flight,), name="medvlm-commit")
            flight.thread.start()

    def _commit(self, flight: _InFlight) -> None:
        try:
            commit_state(
                flight.unfinished, flight.target, step=flight.step, metadata=flight.metadata,
                fingerprints=self.fingerprints(flight.metadata),
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001 (told to all ranks)
            flight.problem = error
            return
        try:
            remove_old(self.folder, self.keep, self.keep_every)
        except OSError as error:
            _say(f"{flight.target.name} is saved, but an older state cannot be removed: {error}")

    def _succeed(self) -> None:
        self._flight, self.failures = None, 0

    def _fail(self, engine: Engine, flight: _InFlight, *, final: bool = False) -> None:
        """Say why, give the space back, and stop when there have been too many."""
        self._flight = None
        self.failures += 1
        problem = flight.failed()
        if problem is not None:
            _say(
                f"rank {engine.rank} could not save the state after step {flight.step}: {problem}. "
                f"{_space(self.folder)}"
            )
        engine.barrier()
        if engine.rank == 0:
            abandon_state(flight.unfinished)
        states = [path.name for path in state_folders(self.folder)]
        kept = f"those before it are whole ({', '.join(states)})" if states else "there is no state before it"
        if final or self.failures >= FAILURES:
            raise NotSaved(
                f"the state after step {flight.step} could not be saved{self._why(problem)}; {kept}. Free space under "
                f"{self.folder}, or lower keep_checkpoints, and run the same command again"
            )
        if engine.rank == 0:
            _say(
                f"{kept}. Training goes on and saves again when it is due; {FAILURES} failures in a row stop it, this "
                f"is number {self.failures}"
            )

    def _why(self, problem: Exception | None) -> str:
        return f": {problem}" if problem is not None else ", by another rank, whose message says why"


def _first(folder: Path, passed: Sequence[Path]) -> Path | None:
    """The newest state of ``folder`` that was not passed over."""
    return next((path for path in state_folders(folder) if path not in passed), None)


def _space(folder: Path) -> str:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return ""
    return f"The disk of {folder} has {usage.free / 2**30:.2f} of {usage.total / 2**30:.2f} GiB free."


def _from_rank_0(engine: Engine, value: Any) -> Any:
    if engine.world_size == 1:
        return value
    told = [value]
    dist.broadcast_object_list(told, device=engine.device)
    return told[0]


def _any(engine: Engine, problem: Exception | None) -> bool:
    """Whether any rank has one; all ranks must call it."""
    flag = torch.tensor([float(problem is not None)], dtype=torch.float64)
    return bool(engine.sum_over_ranks(flag)[0])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
