"""Tar files whose bytes depend on their members alone, with the place of each member."""

from __future__ import annotations

import io
import tarfile
from types import TracebackType
from typing import IO

from medvlm.data_recipes.shards.members import Member

BLOCK = 512
"""Bytes of a tar header, and what members are padded to (POSIX.1-1988, ustar)."""


def size_in_tar(member: Member) -> int:
    """Bytes that ``member`` takes, with its header and padding."""
    return BLOCK + -(-len(member.data) // BLOCK) * BLOCK


class TarWriter:
    """Writes members in order, without times, owners or anything else of this machine.

    Args:
        file: open for writing, at its beginning.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 (closed on exit)

    def add(self, member: Member) -> tuple[int, int]:
        """Write one member; returns the (offset, size) of its bytes in the tar."""
        info = tarfile.TarInfo(member.name)
        info.size, info.mode, info.mtime = len(member.data), 0o644, 0
        offset = self._tar.offset + BLOCK
        self._tar.addfile(info, io.BytesIO(member.data))
        return offset, len(member.data)

    def __enter__(self) -> TarWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tar.close()
