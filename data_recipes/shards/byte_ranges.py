"""Bytes of a file by offset, from a local disk or any storage that fsspec knows; remote reads are tried again."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import fsspec

ATTEMPTS = 5
"""Tries of a remote read; between them 0.25, 0.5, 1 and 2 seconds pass."""

FIRST_WAIT_S = 0.25
OPEN_FILES = 32
"""Local files kept open in a process, least recently used closed first."""

Result = TypeVar("Result")


def is_url(place: str) -> bool:
    """Whether ``place`` names a storage other than a local path."""
    return "://" in place and not place.startswith("file://")


def local_path(place: str) -> Path:
    """The path of a place that is no url."""
    return Path(place.removeprefix("file://"))


def join(folder: str, name: str) -> str:
    """``name`` in ``folder``, a path or a url."""
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else str(local_path(folder) / name)


def parent(place: str) -> str:
    """The folder of a path or a url."""
    return place.rpartition("/")[0] if is_url(place) else str(local_path(place).parent)


@cache
def _transient() -> tuple[type[Exception], ...]:
    """What a storage library may raise for a fault that passes; those that are not installed raise nothing."""
    kinds: list[type[Exception]] = [OSError]
    try:
        from aiohttp import ClientError

        kinds.append(ClientError)
    except ImportError:
        pass
    try:
        from botocore.exceptions import BotoCoreError

        kinds.append(BotoCoreError)
    except ImportError:
        pass
    return tuple(kinds)


def retrying(act: Callable[[], Result], place: str) -> Result:
    """``act()``, tried again when the storage fails.

    Raises:
        FileNotFoundError, PermissionError: at once, since waiting mends neither.
        ConnectionError: still failing after ATTEMPTS tries; names the place.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return act()
        except (FileNotFoundError, PermissionError):
            raise
        except _transient() as error:
            if attempt == ATTEMPTS:
                raise ConnectionError(
                    f"{place}: {ATTEMPTS} tries failed, the last with {type(error).__name__}: {error}"
                ) from error
            time.sleep(FIRST_WAIT_S * 2 ** (attempt - 1))
    raise AssertionError("unreachable")


def storage_of(place: str) -> tuple[Any, str]:
    """(file system, path in it); settings such as an S3 endpoint come from fsspec's configuration and environment.

    Raises:
        ImportError: the protocol's library is not installed; says how to install it.
    """
    try:
        return fsspec.core.url_to_fs(place)
    except ImportError as error:
        raise ImportError(f"{place}: {error}. Install it: pip install 'medvlm[cloud]'") from error


class _OpenFile:
    """A descriptor that is closed with its last user, so that a reader never loses it to an eviction."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


_open: OrderedDict[str, _OpenFile] = OrderedDict()
_lock = threading.Lock()


def _opened(path: str) -> _OpenFile:
    with _lock:
        found = _open.get(path)
        if found is not None and os.fstat(found.descriptor).st_nlink:
            _open.move_to_end(path)
            return found
        _open[path] = found = _OpenFile(path)
        _open.move_to_end(path)
        while len(_open) > OPEN_FILES:
            _open.popitem(last=False)
        return found


def read_range(place: str, offset: int, size: int) -> bytearray:
    """``size`` bytes from ``offset``; fewer when the file ends before.

    Raises:
        OSError: a local file that cannot be opened or read; FileNotFoundError when there is none.
        ConnectionError: a remote read that keeps failing, or a server that does not honour byte ranges.
    """
    if is_url(place):
        storage, path = storage_of(place)
        try:
            data = retrying(lambda: storage.cat_file(path, start=offset, end=offset + size), place)
        except ConnectionError:
            # A server answers a range behind the end of a torn file with an error, not with fewer bytes.
            storage.invalidate_cache()
            if retrying(lambda: storage.size(path), place) >= offset + size:
                raise
            return bytearray()
        if len(data) > size:
            raise ConnectionError(f"{place}: the server sends whole files; byte ranges are needed: read with a cache")
        return bytearray(data)
    file = _opened(str(local_path(place)))
    data, got = bytearray(size), 0
    view = memoryview(data)
    while got < size:
        count = os.preadv(file.descriptor, [view[got:]], offset + got)
        if count == 0:
            break
        got += count
    view.release()
    del data[got:]
    return data


def read_whole(place: str) -> bytes:
    """The whole of a small file.

    Raises:
        FileNotFoundError: there is none.
        ConnectionError: a remote read that keeps failing.
    """
    if not is_url(place):
        return local_path(place).read_bytes()
    storage, path = storage_of(place)
    return retrying(lambda: storage.cat_file(path), place)
