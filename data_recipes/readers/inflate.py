"""Gunzip a file at once: with ISA-L (``pip install isal``) where it is installed, else with zlib; the same bytes."""

from __future__ import annotations

import importlib
import zlib
from pathlib import Path
from typing import Any


def _library() -> Any:
    try:
        return importlib.import_module("isal.isal_zlib")
    except ModuleNotFoundError:
        return zlib


_FASTEST = _library()
GZIP_ERRORS: tuple[type[Exception], ...] = (zlib.error, _FASTEST.error)


def gunzip(path: Path, most: int) -> bytes:
    """At most ``most`` bytes of the content of a gzip file (RFC 1952), of one member or several.

    A file that holds no more is read to its end, so that its checksum is compared.

    Raises:
        EOFError: the file ends too early.
        zlib.error, isal.isal_zlib.error: damaged, or the checksum is another.
    """
    raw = path.read_bytes()
    parts: list[bytes] = []
    while raw and most > 0:
        stream = _FASTEST.decompressobj(wbits=31)
        # One byte more than wanted: without it the stream would not go on to the checksum.
        part = stream.decompress(raw, most + 1)
        if not stream.eof and len(part) <= most:
            raise EOFError("the compressed file ends before its end-of-stream marker")
        parts.append(part[:most] if len(part) > most else part)
        most -= len(part)
        raw = stream.unused_data.lstrip(b"\0")  # a file may be padded with zeros
    return parts[0] if len(parts) == 1 else b"".join(parts)
