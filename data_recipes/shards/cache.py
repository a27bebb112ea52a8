"""Shards of a remote set on a local disk: whole or not at all, checked, the least recently used leave first."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import sha256_of
from medvlm.data_recipes.shards.byte_ranges import retrying, storage_of

PARTIAL = ".partial"
STALE_S = 6 * 3600.0
"""Seconds after which an unfinished download belongs to a process that is gone."""


@dataclass(frozen=True, kw_only=True)
class ShardCache:
    """A folder that all processes of a machine may share; files are named by their SHA-256.

    Attributes:
        max_bytes: of all shards together; one that is being fetched may be over it, alone.
    """

    folder: Path
    max_bytes: int

    def path(self, sha256: str) -> Path:
        return self.folder / f"{sha256}.tar"

    def held(self, sha256: str) -> Path | None:
        """The copy when it is there; marks it as used."""
        path = self.path(sha256)
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def fetch(self, place: str, *, size: int, sha256: str) -> Path:
        """The local copy of the shard at ``place``, downloaded when it is not there.

        Raises:
            BadSample: what is downloaded, twice, is not what the index says.
            FileNotFoundError, ConnectionError: the storage has no such shard, or keeps failing.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock(sha256):
            found = self.held(sha256)
            if found is not None:
                return found
            self._make_room(size)
            handle, name = tempfile.mkstemp(dir=self.folder, suffix=PARTIAL)
            os.close(handle)
            temporary = Path(name)
            try:
                for _ in range(2):
                    storage, path = storage_of(place)
                    retrying(lambda s=storage, p=path: s.get_file(p, name), place)  # type: ignore[misc]
                    if sha256_of(temporary) == sha256:
                        return temporary.rename(self.path(sha256))
                raise BadSample(
                    f"the shard's SHA-256 is not {sha256[:12]}..., which the index says",
                    where=place,
                    mend="build the shard again, or copy the whole set again",
                )
            finally:
                temporary.unlink(missing_ok=True)

    @contextmanager
    def _lock(self, sha256: str) -> Iterator[None]:
        # Sixteen locks: two processes never download the same shard at once, and most others do not wait.
        with (self.folder / f".lock-{sha256[0]}").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _make_room(self, size: int) -> None:
        files: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            try:
                state = path.stat()
            except FileNotFoundError:
                continue  # another process has just removed it
            if path.suffix == PARTIAL and time.time() - state.st_mtime > STALE_S:
                path.unlink(missing_ok=True)
            elif path.suffix == ".tar":
                files.append((state.st_mtime, state.st_size, path))
        total = sum(length for _, length, _ in files)
        for _, length, path in sorted(files):
            if total + size <= self.max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= length
