"""What lies in a folder, by content: visuals, tables with their columns, DICOM headers, report texts."""

from __future__ import annotations

import codecs
import csv
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.inventory import VISUAL_NAMES
from medvlm.data_recipes.own.hub import is_datasets_folder, read_folder
from medvlm.data_recipes.own.rows import UTF_16, TableKind, csv_rows, json_rows, kind_of_table
from medvlm.data_recipes.readers.content import format_of
from medvlm.data_recipes.tables import Row

MOST_FILES = 50_000
"""Files that are looked at; enough to guess a recipe, and no hours on a picture archive."""
FIRST_ROWS = 200
DELIMITERS = ",;\t|"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A file with rows.

    Attributes:
        path: file, or folder of the ``datasets`` library.
        columns: keys in the order in which they first come.
        rows: the first FIRST_ROWS.
        pictures: columns that hold pictures themselves (``datasets``).
    """

    path: Path
    kind: TableKind
    columns: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    encoding: str = "utf-8"
    delimiter: str = ","
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is in a folder.

    Attributes:
        files: of each kind: picture, dicom, nifti, array, clip, table, text, other.
        visuals: name of a file -> the files of that name that a reader knows.
        dicom, texts: DICOM files and texts that are no tables, in the order found.
        tables: largest file first.
        unread: what looks like a table and cannot be read, or a folder that cannot be listed, and why.
        more: there are more files than were looked at.
    """

    root: Path
    files: Counter[str]
    visuals: dict[str, list[Path]]
    dicom: tuple[Path, ...]
    texts: tuple[Path, ...]
    tables: tuple[Table, ...]
    unread: tuple[BadSample, ...] = field(default=())
    more: bool = False


def look(root: Path) -> Found:
    """Look at the files under ``root``; hidden ones are left out."""
    files: Counter[str] = Counter()
    visuals: dict[str, list[Path]] = defaultdict(list)
    dicom: list[Path] = []
    texts: list[Path] = []
    tables: list[Table] = []
    unread: list[BadSample] = []
    everything = _files(root, tables, unread)
    for path in islice(everything, MOST_FILES):
        kind = _kind(path)
        if kind == "text":
            try:
                table = _table(path)
            except BadSample as bad:
                unread.append(bad)
                table = None
            if table is not None:
                kind = "table"
                tables.append(table)
            else:
                texts.append(path)
        elif kind not in ("table", "other"):
            visuals[path.name].append(path)
        if kind == "dicom":
            dicom.append(path)
        files[kind] += 1
    files["table"] += sum(table.kind == "datasets" for table in tables)
    tables.sort(key=lambda table: -(table.path.stat().st_size if table.path.is_file() else 0))
    return Found(
        root=root, files=files, visuals=dict(visuals), dicom=tuple(dicom), texts=tuple(texts), tables=tuple(tables),
        unread=tuple(unread), more=next(everything, None) is not None,
    )  # fmt: skip


def _files(root: Path, tables: list[Table], unread: list[BadSample]) -> Iterator[Path]:
    """The files under ``root``; a folder of the ``datasets`` library becomes a table as a whole."""
    for place, names, leaves in os.walk(root, onerror=lambda error: unread.append(_unlisted(error))):
        here = Path(place)
        if is_datasets_folder(here):
            names[:] = []
            try:
                tables.append(_datasets(here))
            except BadSample as bad:
                unread.append(bad)
            continue
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield from (here / leaf for leaf in sorted(leaves) if not leaf.startswith("."))


def _unlisted(error: OSError) -> BadSample:
    return BadSample(
        f"the folder cannot be listed ({error.strerror})", where=str(error.filename), mend="check its permissions"
    )


def _kind(path: Path) -> str:
    try:
        if path.stat().st_size == 0:
            return "other"
        found = format_of(path)
        if found is not None:
            return found
        if path.name.lower().endswith(VISUAL_NAMES) or kind_of_table(path) is None:
            return "other"
    except OSError:
        return "other"  # Building refuses what cannot be opened and says so.
    return "text"


def _table(path: Path) -> Table | None:
    """The table in a text file; None when it is only a text."""
    kind = kind_of_table(path)
    if kind in ("json list", "json lines"):
        rows = _first(json_rows(path))
        return Table(path=path, kind=kind, columns=_columns(rows), rows=rows) if rows else None
    encoding = encoding_of(path)
    delimiter = _delimiter(path, encoding)
    if delimiter is None:
        return None
    rows = _first(csv_rows(path, encoding, delimiter))
    return Table(
        path=path, kind="csv", columns=_columns(rows), rows=rows, encoding=encoding, delimiter=delimiter
    )  # fmt: skip


def _datasets(path: Path) -> Table:
    with TemporaryDirectory() as folder:
        rows = _first(row for _, row in read_folder(path, Path(folder)))
        place = str(Path(folder).resolve())
        pictures = [name for row in rows for name, value in row.items() if _holds(value, place)]
    return Table(path=path, kind="datasets", columns=_columns(rows), rows=rows, pictures=tuple(dict.fromkeys(pictures)))


def _holds(value: Any, place: str) -> bool:
    return any(
        isinstance(one, str) and one.startswith(place) for one in (value if isinstance(value, list) else [value])
    )


def _first(rows: Iterator[Row | BadSample]) -> tuple[dict[str, Any], ...]:
    found = (row.values for row in islice(rows, 2 * FIRST_ROWS) if isinstance(row, Row))
    return tuple(islice(found, FIRST_ROWS))


def _columns(rows: tuple[dict[str, Any], ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for row in rows for name in row))


def encoding_of(path: Path) -> str:
    """utf-16 with a byte order mark, utf-8 where every byte is; else cp1252, what older spreadsheets write."""
    with path.open("rb") as file:
        if file.read(2) in UTF_16:
            return "utf-16"
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                decoder.decode(block)
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def _delimiter(path: Path, encoding: str) -> str | None:
    """The delimiter that gives two columns or more, as many in almost every row as in the header."""
    best, width = None, 1
    with path.open(encoding=encoding, errors="replace", newline="") as file:
        head = list(islice(file, 400))
    for delimiter in DELIMITERS:
        try:
            rows = [row for row in csv.reader(head, delimiter=delimiter) if row]
        except csv.Error:
            continue
        if (
            len(rows) < 2
            or len(set(filter(None, rows[0]))) < len(list(filter(None, rows[0])))
            or max(len(cell) for cell in rows[0]) > 60
        ):
            continue
        same = sum(len(row) == len(rows[0]) for row in rows[1:-1] or rows[1:])
        if len(rows[0]) > width and same >= 0.9 * max(len(rows) - 2, 1):
            best, width = delimiter, len(rows[0])
    return best
