"""What the made-up examples of tasks are written with: small real pictures whose bytes never change, tables, rows."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from medvlm.data_recipes.errors import BadSample

COUNT = 24
"""Questions of an example, or a few more."""


def png(number: int, size: int = 20) -> bytes:
    """A grey PNG of ``size`` x ``size`` pixels that differs from number to number.

    It is stored without compression: the bytes, and so their SHA-256, are the same with every version of zlib.
    """
    rows = b"".join(
        b"\0" + bytes((x * (number % 7 + 1) + y * (number % 5 + 2) + 9 * number) % 256 for x in range(size))
        for y in range(size)
    )

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    stored = b"\x78\x01\x01" + struct.pack("<HH", len(rows), len(rows) ^ 0xFFFF) + rows
    packed = stored + struct.pack(">I", zlib.adler32(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def write_json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A Parquet file as the hub holds it: a picture is {"bytes", "path"}.

    Raises:
        BadSample: pyarrow is not installed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise BadSample(
            "this example is a Parquet file, and pyarrow is not installed", where=str(path), mend="pip install pyarrow"
        ) from error
    parquet.write_table(arrow.Table.from_pylist([dict(row) for row in rows]), path)


CASES = (
    ("a cough for three weeks", "the left lung", "a shadow", "chest"),
    ("pain in the right knee after a fall", "the knee", "a line through the bone", "knee"),
    ("a headache that woke her at night", "the brain", "a bright spot", "head"),
    ("blood in the urine", "the bladder", "a wall that is too thick", "pelvis"),
    ("a lump in the neck", "the thyroid", "a nodule", "neck"),
    ("swollen ankles", "the heart", "a chamber that is too large", "chest"),
)
"""(complaint, organ, finding, body part): invented; no patient is behind any of them."""

OPTIONS = (
    "wait and look again", "a second picture", "surgery today", "rest and plenty to drink", "an antibiotic",
    "a blood test", "a biopsy", "physiotherapy", "a change of diet", "oxygen",
)  # fmt: skip
"""Ten invented answers to "what next?"."""


def vignette(number: int) -> str:
    """An invented question, different for each number."""
    complaint, organ, finding, _ = CASES[number % len(CASES)]
    return f"Invented patient {number + 1} has {complaint}. {finding.capitalize()} is seen in {organ}. What comes next?"


def options_of(number: int, count: int) -> tuple[list[str], int]:
    """``count`` options of OPTIONS and the place of the right one; letters are used about equally often."""
    shown = [OPTIONS[(number + place) % len(OPTIONS)] for place in range(count)]
    return shown, (number * 3 + number // len(OPTIONS)) % count
