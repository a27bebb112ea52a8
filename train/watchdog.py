"""A rank that does not go on is named: each rank notes where it is, and whoever waits too long reads the notes."""

from __future__ import annotations

import faulthandler
import json
import os
import platform
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from medvlm.train.stopping import EXIT_HUNG

PHASES = (
    "reading data",
    "agreeing on the step",
    "forward and backward",
    "updating",
    "answering questions",
    "saving",
)
"""Of a step, in their order."""


@dataclass(frozen=True, kw_only=True)
class Note:
    """Where a rank is: ``phase`` of ``step`` for ``seconds``; ``beat`` counts up as long as the process lives."""

    rank: int
    step: int
    phase: str
    seconds: float
    beat: int
    process: str

    @property
    def place(self) -> tuple[int, int]:
        """How far it has come."""
        return self.step, PHASES.index(self.phase)

    def __str__(self) -> str:
        return f"rank {self.rank} ({self.process}) is {self.phase} at step {self.step} since {self.seconds:.0f} s"


class Watchdog:
    """Use it in a ``with`` block around the steps of a stage.

    A thread of each rank notes the place of its rank in a file, which costs the steps nothing. When the rank has stood
    at one place for ``minutes``, the thread reads the notes of all, says who is behind, and ends the process: it may be
    waiting in a collective, which nothing else can end. The notes lie in the run folder, which all machines share.

    Args:
        folder: of the notes, for this stage.
        minutes: longer than any step and any save.
    """

    def __init__(self, folder: Path, *, rank: int, world_size: int, minutes: float) -> None:
        self.folder, self.rank, self.world_size, self.limit_s = folder, rank, world_size, 60 * minutes
        self.period_s = min(5.0, self.limit_s / 10)
        self._place = (0, PHASES[0], time.monotonic())
        self._end = threading.Event()
        self._beat = 0

    def at(self, step: int, phase: str) -> None:
        """The rank has come to ``phase`` of ``step``.

        Raises:
            ValueError: there is no such phase, so that nobody could tell who is behind.
        """
        PHASES.index(phase)
        self._place = (step, phase, time.monotonic())

    def __enter__(self) -> Watchdog:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._path(self.rank).unlink(missing_ok=True)
        threading.Thread(target=self._watch, name="medvlm-watchdog", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()

    def _path(self, rank: int) -> Path:
        return self.folder / f"rank-{rank:05d}.json"

    def _watch(self) -> None:
        while not self._end.wait(self.period_s):
            self._write()
            place = self._place
            if time.monotonic() - place[2] > self.limit_s:
                before = self._read()
                if self._end.wait(3 * self.period_s):
                    return
                self._write()
                if self._place == place:
                    self._say_and_end(who_is_behind(before, self._read(), self.world_size))

    def _write(self) -> None:
        step, phase, since = self._place
        self._beat += 1
        note = {
            "rank": self.rank, "step": step, "phase": phase, "seconds": time.monotonic() - since, "beat": self._beat,
            "process": f"process {os.getpid()} on {platform.node()}",
        }  # fmt: skip
        unfinished = self._path(self.rank).with_suffix(".unfinished")
        try:
            unfinished.write_text(json.dumps(note), encoding="utf-8")
            unfinished.replace(self._path(self.rank))
        except OSError:
            pass  # a full disk is told by what needs it

    def _read(self) -> dict[int, Note]:
        notes = {}
        for rank in range(self.world_size):
            try:
                notes[rank] = Note(**json.loads(self._path(rank).read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError):
                continue
        return notes

    def _say_and_end(self, behind: str) -> None:
        step, phase, since = self._place
        said = (
            f"medvlm train: rank {self.rank} has been {phase} at step {step} for {time.monotonic() - since:.0f} s, "
            f"longer than engine.hang_minutes allows. {behind} The state saved last is whole: run the same command "
            "again, or with a larger engine.hang_minutes if the step was only slow.\n"
        )
        os.write(2, said.encode())
        faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=False)
        os._exit(EXIT_HUNG)


def who_is_behind(before: dict[int, Note], after: dict[int, Note], world_size: int) -> str:
    """One sentence on the rank that the others wait for, from two readings of the notes."""
    missing = [rank for rank in range(world_size) if rank not in after]
    silent = [after[rank] for rank in after if rank in before and before[rank].beat == after[rank].beat]
    if missing:
        return f"Behind: rank {_list(missing)}, of which there is no note at all."
    if silent:
        return (
            f"Behind: {'; '.join(map(str, silent))}, and nothing has been heard of it since: stopped, killed, or its "
            "machine is gone."
        )
    last = min(note.place for note in after.values())
    behind = [note for note in after.values() if note.place == last]
    if len(behind) == world_size:
        return (
            "No rank is behind: all live and wait at the same place, so that the network or the collective itself "
            "hangs."
            if world_size > 1
            else "It is the only rank; the stack below says where it stands."
        )
    return f"Behind: {'; '.join(map(str, behind))}, and it lives; its own message shows its stack."


def _list(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks))
