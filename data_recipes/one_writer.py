"""One process at a time writes into a folder: two would mix their rows under one name."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medvlm.data_recipes.errors import BadSample


@contextmanager
def one_writer(lock: Path) -> Iterator[None]:
    """Hold the file ``lock``; it is gone afterwards, and the system lets go of that of a killed process.

    Raises:
        BadSample: another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with _held(lock):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    while True:
        with lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BadSample(
                    "another process is writing there", where=str(lock.parent), mend="wait for it, or end it"
                ) from error
            if _is(lock, file.fileno()):
                yield
                return
        # Its last holder has removed it between the opening and the lock: this one locks nobody out.


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
