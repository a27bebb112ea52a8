"""Rows of published tables (CSV, JSON list, JSON lines), each knowing where it stands."""

from __future__ import annotations

import codecs
import csv
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Sample

ABSENT = {"", "null", "none", "n/a", "nan"}
"""What published tables write, in any case, where they have nothing to say."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table.

    Attributes:
        where: "path:row" as a person counts: line of the file, or number of the item in a JSON list from 1.
        values: column or key -> value.
    """

    where: str
    number: int
    values: dict[str, Any]

    def text(self, key: str) -> str:
        """The stripped text of ``key``; numbers become their digits. "None" is a text: it can be an answer.

        Raises:
            BadSample: the key is absent or holds nothing.
        """
        value = self.written(key)
        if not value:
            raise BadSample(
                f"{key!r} is empty ({self.values.get(key)!r})",
                where=self.where,
                mend=f"fill in {key!r} or drop the row",
            )
        return value

    def optional(self, key: str) -> str | None:
        """The stripped text of ``key``, or None when the table says nothing (see ABSENT).

        Raises:
            BadSample: the value is neither text nor a number.
        """
        value = self.written(key)
        return None if value.lower() in ABSENT else value

    def written(self, key: str) -> str:
        """The stripped text of ``key``, "" when there is none.

        Raises:
            BadSample: the value is neither text nor a number.
        """
        value = self.values.get(key)
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise BadSample(
                f"{key!r} must be text or a number, got {type(value).__name__}",
                where=self.where,
                mend=f"write {key!r} as text",
            )
        return " ".join(str(value).split())


def read_text(path: Path) -> str:
    """The UTF-8 text of ``path`` (a byte order mark is allowed).

    Raises:
        BadSample: the file is missing or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadSample(f"not UTF-8 at byte {error.start}", where=str(path), mend="save the file as UTF-8") from error
    except OSError as error:
        raise BadSample(
            f"cannot be opened ({error.strerror})", where=str(path), mend="check the path and its permissions"
        ) from error


def read_lines(path: Path) -> Iterator[str]:
    """The lines of UTF-8 text with their ends, all written as ``\\n``; the text is never held whole.

    A form feed and the separators of Unicode, which stand inside reports, end no line.

    Raises:
        BadSample: the file is missing or not UTF-8; before the first line.
    """
    try:
        _check_utf8(path)
        with path.open(encoding="utf-8-sig") as lines:
            yield from lines
    except OSError as error:
        raise BadSample(
            f"cannot be opened ({error.strerror})", where=str(path), mend="check the path and its permissions"
        ) from error


def _check_utf8(path: Path, piece: int = 1 << 20) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    before = 0
    with path.open("rb") as file:
        while True:
            data = file.read(piece)
            held = len(decoder.getstate()[0])
            try:
                decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                place = before - held + error.start
                raise BadSample(f"not UTF-8 at byte {place}", where=str(path), mend="save the file as UTF-8") from error
            if not data:
                return
            before += len(data)


def read_csv(path: Path, *, required: Iterable[str], delimiter: str = ",") -> Iterator[Row | BadSample]:
    """Rows of a CSV file with a header; a row of the wrong length comes out as BadSample.

    Raises:
        BadSample: the file is not UTF-8, or a required column is missing.
    """
    reader = csv.reader(read_lines(path), delimiter=delimiter)
    header = next(reader, [])
    require_columns(header, required, path)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadSample(f"not CSV: {error}", where=f"{path}:{start}", mend="fix the quoting of the row")
            return
        if not any(cell.strip() for cell in cells):
            continue
        where = f"{path}:{start}"
        if len(cells) != len(header):
            yield BadSample(
                f"{len(cells)} cells for {len(header)} columns", where=where, mend="quote cells that hold commas"
            )
            continue
        yield Row(where=where, number=start, values=dict(zip(header, cells, strict=True)))


def require_columns(header: list[str], required: Iterable[str], path: Path) -> None:
    """Refuse a table without one of the columns.

    Raises:
        BadSample: names the first that is missing, and what is there.
    """
    missing = [name for name in required if name not in header]
    if missing:
        raise BadSample(
            f"column {missing[0]!r} is missing; the header is {header[:12]}",
            where=f"{path}:1",
            mend="use the table as published, comma separated with its header",
        )


def read_json(path: Path) -> Any:
    """The parsed JSON of ``path``.

    Raises:
        BadSample: not UTF-8 or not JSON.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise BadSample(
            f"not JSON: {error.msg}", where=f"{path}:{error.lineno}", mend="use the file as published"
        ) from error


def read_json_list(path: Path) -> Iterator[Row | BadSample]:
    """Items of a JSON list of objects.

    Raises:
        BadSample: not JSON, or not a list.
    """
    items = read_json(path)
    if not isinstance(items, list):
        raise BadSample(
            f"expected a list of objects, got {type(items).__name__}",
            where=str(path),
            mend="use the file as published",
        )
    for number, item in enumerate(items, start=1):
        yield object_row(item, where=f"{path}:{number}", number=number)


def read_json_lines(path: Path) -> Iterator[Row | BadSample]:
    """Lines of a JSON-lines file; a broken line comes out as BadSample.

    Raises:
        BadSample: the file is not UTF-8.
    """
    for number, ended in enumerate(read_lines(path), start=1):
        line = ended.removesuffix("\n")
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            yield object_row(json.loads(line), where=where, number=number)
        except json.JSONDecodeError as error:
            yield BadSample(f"not JSON: {error.msg} at column {error.colno}", where=where, mend="fix the line")


def object_row(item: Any, *, where: str, number: int) -> Row | BadSample:
    """The row of a parsed JSON object; anything else is refused."""
    if not isinstance(item, dict):
        return BadSample(f"expected an object, got {type(item).__name__}", where=where, mend="write an object")
    return Row(where=where, number=number, values=item)


def read_xml(path: Path) -> ElementTree.Element:
    """The root element of an XML file.

    Raises:
        BadSample: missing, damaged, or of an encoding that is not known.
    """
    try:
        return ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError, LookupError, ValueError) as error:
        raise BadSample(f"not readable XML: {error}", where=str(path), mend="download the file again") from error


def first_keys(path: Path) -> set[str]:
    """Keys of the first object of a JSON list or JSON-lines file; empty when there is none (used to match)."""
    rows = read_json_lines if path.suffix == ".jsonl" else read_json_list
    try:
        row = next(iter(rows(path)), None)
    except BadSample:
        return set()  # Not this layout; whoever owns the file complains about it.
    return set(row.values) if isinstance(row, Row) else set()


def make_samples(
    rows: Iterable[Row | BadSample], make: Callable[[Row], Iterable[Sample]]
) -> Iterator[Sample | BadSample]:
    """Turn rows into samples; a BadSample raised by ``make`` comes out in the place of the row's samples."""
    for row in rows:
        if isinstance(row, BadSample):
            yield row
            continue
        try:
            yield from list(make(row))
        except BadSample as bad:
            yield bad
