"""A progress bar with an estimate of the time left on standard error; a line now and then where that is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

EVERY_S = 10.0
"""Seconds between two lines where nothing can be redrawn: a log file, a batch system."""


class Track:
    """Counts what is done; made by ``tracking``."""

    def __init__(self, label: str, total: int, bar: Progress | None, done: int) -> None:
        self.label, self.total, self.done = label, total, done
        self._first, self._began, self._said = done, time.monotonic(), time.monotonic()
        self._bar = bar
        self._task = bar.add_task(label, total=total, completed=done) if bar is not None else None

    def advance(self, count: int = 1) -> None:
        """``count`` more are done."""
        self.done += count
        now = time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.done)
        elif now - self._said > EVERY_S:
            self._said = now
            print(self.line(now - self._began), file=sys.stderr, flush=True)

    def line(self, elapsed_s: float) -> str:
        """ "reading 120/500 (24 %), 40.0/s, 9 s left"; what was done before the start does not count for the rate."""
        rate = (self.done - self._first) / elapsed_s if elapsed_s > 0 else 0.0
        left = f"{(self.total - self.done) / rate:.0f} s left" if rate > 0 else "time left unknown"
        share = 100 * self.done // self.total if self.total else 100
        return f"{self.label} {self.done}/{self.total} ({share} %), {rate:.1f}/s, {left}"


@contextmanager
def tracking(label: str, total: int, *, done: int = 0, show: bool = True) -> Iterator[Track]:
    """A Track for ``total`` items of which ``done`` were done in an earlier run; nothing is shown unless ``show``."""
    console = Console(file=sys.stderr)
    if not show:
        yield Track(label, total, Progress(disable=True), done)
        return
    if not console.is_terminal:
        yield Track(label, total, None, done)
        return
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=console,
    )  # fmt: skip
    with bar:
        yield Track(label, total, bar, done)
