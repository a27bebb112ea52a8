"""Files of a state, written while training goes on: copied to host memory in the step, written by a thread."""

from __future__ import annotations

import copy
import hashlib
import os
import threading
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from medvlm.train.checkpoint import HASH


class StateWriter:
    """Takes the files of one state on this rank, and writes them.

    ``take`` is what engines call. With ``background`` it copies what it is given to the host, so that the next steps
    may change the originals, and ``start`` lets a thread write the copies. Without, it writes at once. A failure is
    kept in ``problem`` instead of being raised: an engine that stopped in the middle of a save would leave the other
    ranks waiting for it.
    """

    def __init__(self, *, background: bool) -> None:
        self.background = background
        self.problem: Exception | None = None
        self._waiting: list[tuple[Any, Path]] = []
        self._thread: threading.Thread | None = None

    def take(self, state: Any, path: Path | str) -> None:
        """One file: plain containers of tensors and numbers."""
        if self.problem is not None:
            return
        try:
            if self.background:
                self._waiting.append((host_copy(state, {}), Path(path)))
            else:
                write_file(state, Path(path))
        except (OSError, RuntimeError) as error:
            self.problem = error
            self._waiting.clear()

    def start(self) -> None:
        """Begin to write what was taken."""
        if self.background:
            self._thread = threading.Thread(target=self._write, name="medvlm-save")  # not a daemon: it ends its work
            self._thread.start()

    def _write(self) -> None:
        try:
            while self._waiting and self.problem is None:
                state, path = self._waiting.pop(0)
                write_file(state, path)
        except Exception as error:  # noqa: BLE001 (told by whoever asks for it)
            self.problem = error
        self._waiting.clear()

    @property
    def done(self) -> bool:
        """Whether all is written, or will never be."""
        return self._thread is None or not self._thread.is_alive()

    def wait(self) -> None:
        """Until ``done``."""
        if self._thread is not None:
            self._thread.join()


def host_copy(state: Any, seen: dict[int, Any]) -> Any:
    """``state`` with every tensor copied to the CPU; a tensor that stands in two places stays one.

    DeepSpeed and torch put tensors into dictionaries, lists and tuples; whatever else there is is small.
    """
    if id(state) in seen:
        return seen[id(state)]
    made: Any
    if isinstance(state, Tensor):
        made = state.detach().to("cpu", copy=True)
    elif isinstance(state, dict):
        made = copy.copy(state)  # keeps an OrderedDict one, with what it knows besides
        for key, value in state.items():
            made[key] = host_copy(value, seen)
    elif isinstance(state, list):
        made = [host_copy(value, seen) for value in state]
    elif isinstance(state, tuple):
        parts = [host_copy(value, seen) for value in state]
        made = type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    else:
        made = copy.deepcopy(state)
    seen[id(state)] = made
    return made


class _Hashing:
    """A file that hashes what goes through it, and remembers why it could not be written.

    ``torch.save`` says of a full disk only that the position in its archive is unexpected.
    """

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")
        self.sha256 = hashlib.sha256()
        self.problem: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            written = self.file.write(data)
        except OSError as error:
            self.problem = error
            raise
        self.sha256.update(data)
        return written

    def flush(self) -> None:
        self.file.flush()


def write_file(state: Any, path: Path) -> None:
    """``torch.save`` to ``path``, flushed to disk, with a note of its SHA-256 beside it.

    Raises:
        OSError: it cannot be written.
    """
    file = _Hashing(path)
    try:
        with file.file:
            torch.save(state, cast(IO[bytes], file))  # which needs no more of it than write and flush
            file.flush()
            os.fsync(file.file.fileno())
    except (OSError, RuntimeError) as error:
        if file.problem is not None:
            raise type(file.problem)(file.problem.errno, file.problem.strerror, str(path)) from error
        raise
    path.with_name(path.name + HASH).write_text(file.sha256.hexdigest(), encoding="ascii")
