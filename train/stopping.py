"""Why a training ends early, with which exit code; and signals, after which the step is finished and saved."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

EXIT_STOPPED = 75
"""Stopped by a signal with its state saved, or before there was one: run the same command again (EX_TEMPFAIL)."""
EXIT_NOT_SAVED = 74
"""A state could not be written (EX_IOERR)."""
EXIT_HUNG = 70
"""A rank did not go on (EX_SOFTWARE)."""

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""What ends a training: schedulers, Ctrl-C, and Slurm before the time is up (``--signal=USR1@300``)."""
SAME_S = 3.0
"""A launcher passes on what the scheduler may have sent to its children already: within this time it is one signal."""


class Stopped(BaseException):
    """A signal asked for an end. Not an Exception: what catches errors must not go on after it."""


class NotSaved(OSError):
    """A state could not be written; those before it are whole."""


class StoppedByOther(RuntimeError):
    """Another rank has a problem, and says which."""


class Stopping:
    """Listens for SIGNALS in a ``with`` block.

    In a training loop, which looks at ``asked`` once a step, a signal only sets it; elsewhere it raises Stopped at
    once, as Ctrl-C does. A second one ends the process on the spot, whatever it is doing: a thread hears of signals
    also while the main thread waits for another rank.

    Attributes:
        asked: name of the first signal.
        in_steps: whether a training loop is running.
    """

    def __init__(self) -> None:
        self.asked: str | None = None
        self.in_steps = False
        self._first = 0.0
        self._before: dict[signal.Signals, Any] = {}
        self._ends: tuple[socket.socket, socket.socket] | None = None

    def __enter__(self) -> Stopping:
        if threading.current_thread() is not threading.main_thread():
            return self  # Python handles signals in the main thread only
        listens, told = socket.socketpair()
        told.setblocking(False)
        self._ends = (listens, told)
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._in_main_thread)
        signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(listens,), name="medvlm-signals", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ends is None:
            return
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for end in reversed(self._ends):
            end.close()
        self._ends = None

    def _listen(self, listens: socket.socket) -> None:
        """Hears of each signal at once, also while the main thread waits in a collective."""
        while True:
            try:
                heard = listens.recv(1)
            except OSError:
                return
            if not heard:
                return
            if heard[0] in SIGNALS:
                self._note(signal.Signals(heard[0]))

    def _note(self, number: signal.Signals) -> None:
        if self.asked is None:
            self._first, self.asked = time.monotonic(), number.name
            after = "finishes the step, saves and ends" if self.in_steps else "ends"
            _say(f"{number.name}: {after}; once more ends at once, without saving")
        elif time.monotonic() - self._first > SAME_S:
            _say(f"{number.name} again: ends at once")
            os._exit(128 + number)

    def _in_main_thread(self, number: int, frame: FrameType | None) -> None:
        if not self.in_steps:
            raise Stopped(f"stopped by {signal.Signals(number).name}")


def _say(text: str) -> None:
    # Not print: the main thread may hold the lock of standard error.
    os.write(sys.stderr.fileno() if hasattr(sys.stderr, "fileno") else 2, f"medvlm train: {text}\n".encode())
