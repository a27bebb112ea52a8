"""Rows of the files that a recipe names, read as they are needed; what a file is, is told from its content."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.own.hub import is_datasets_folder, read_folder, read_hub
from medvlm.data_recipes.own.json_list import read_items
from medvlm.data_recipes.own.settings import Filled
from medvlm.data_recipes.tables import Row, object_row

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""How the Unicode text of a spreadsheet begins."""
TableKind = Literal["json list", "json lines", "csv", "datasets"]


@dataclass(frozen=True, kw_only=True)
class SourceRow:
    """A row, the file that it stands in, and an id that is the same in every build.

    Attributes:
        key: "train/17": file without suffix, number of the row.
        file: name of the file as the recipe writes it.
    """

    row: Row
    key: str
    file: str


def kind_of_table(path: Path) -> TableKind | None:
    """What holds rows here, by content; None when nothing does that is read here."""
    if path.is_dir():
        return "datasets" if is_datasets_folder(path) else None
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(b"PAR1"):
        return "datasets"
    if head.startswith(UTF_16):
        return "csv"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"["):
        return "json list"
    if text.startswith(b"{"):
        return "json lines"
    return "csv" if text and b"\0" not in head else None


def read_rows(filled: Filled, visuals: Path) -> Iterator[SourceRow | BadSample]:
    """Every row of every file of the recipe, in their order.

    Args:
        visuals: folder into which pictures that lie inside the rows are written.
    """
    recipe = filled.recipe
    if recipe.hub is not None:
        for name, row in read_hub(recipe.hub, recipe.hub_config, recipe.hub_split, visuals):
            yield SourceRow(row=row, key=f"{name}/{row.number}", file=name)
        return
    for written, stem in zip(recipe.paths, _stems(recipe.paths), strict=True):
        path = filled.path(written)
        try:
            if not path.exists():
                raise BadSample("no such file", where=str(path), mend="correct paths in the recipe")
            for name, found in _rows_of(path, recipe.encoding, recipe.delimiter, visuals):
                if isinstance(found, BadSample):
                    yield found
                    continue
                yield SourceRow(
                    row=found, key=f"{stem}/{name + '/' if name else ''}{found.number}", file=name or written
                )
        except BadSample as bad:
            yield bad  # A file that is refused as a whole ends itself, not the others.


def _stems(paths: tuple[str, ...]) -> list[str]:
    """A short name for each file, for ids: without folders where these tell nothing apart."""
    names = [Path(written).stem for written in paths]
    if len(set(names)) < len(names):
        names = [f"{number}-{name}" for number, name in enumerate(names, start=1)]
    return names


def _rows_of(path: Path, encoding: str, delimiter: str, visuals: Path) -> Iterator[tuple[str, Row | BadSample]]:
    match kind_of_table(path):
        case "json list" | "json lines":
            rows = json_rows(path)
        case "csv":
            rows = csv_rows(path, encoding, delimiter)
        case "datasets":
            yield from read_folder(path, visuals)
            return
        case None:
            raise BadSample(
                "no JSON, JSON lines, CSV or Parquet, going by its content, and no folder of datasets",
                where=str(path),
                mend="name a file with rows in paths, not a folder of pictures",
            )
    yield from (("", row) for row in rows)


def json_rows(path: Path) -> Iterator[Row | BadSample]:
    """Rows of a JSON list or of JSON lines, read as they are needed.

    Raises:
        BadSample: the file is neither.
    """
    yield from _json_list(path) if kind_of_table(path) == "json list" else _json_lines(path)


def _json_list(path: Path) -> Iterator[Row | BadSample]:
    try:
        for item in read_items(path):
            if isinstance(item, BadSample):
                yield item
            else:
                yield object_row(item[1], where=f"{path}:{item[0]}", number=item[0])
    except UnicodeDecodeError as error:
        raise BadSample("not UTF-8", where=str(path), mend="save the file as UTF-8") from error


def _json_lines(path: Path) -> Iterator[Row | BadSample]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            if number == 1 and line.strip() == "{":
                raise BadSample(
                    "one JSON object over many lines", where=str(path), mend="write a list of rows, or one row per line"
                )
            try:
                if not line.isascii():
                    line.encode()
                yield object_row(json.loads(line.rstrip("\r\n")), where=where, number=number)
            except json.JSONDecodeError as error:
                yield BadSample(f"not JSON: {error.msg} at column {error.colno}", where=where, mend="fix the line")
            except UnicodeEncodeError:
                yield BadSample("not UTF-8", where=where, mend="save the file as UTF-8")


def csv_rows(path: Path, encoding: str, delimiter: str) -> Iterator[Row | BadSample]:
    """Rows of a CSV file with a header, read as they are needed; a row that cannot be used comes out as BadSample.

    Columns without a name, which spreadsheets write behind the last one, are left out.

    Raises:
        BadSample: another encoding, or a header that is none.
    """
    mend = "write encoding: cp1252 (or what the file was saved in) in the recipe"
    errors = "surrogateescape" if encoding.lower() in ("utf-8", "utf8") else "strict"
    name = "utf-8-sig" if errors == "surrogateescape" else encoding
    try:
        with path.open(encoding=name, errors=errors, newline="") as lines:
            reader = csv.reader(lines, delimiter=delimiter)
            header = [cell.strip() for cell in next(reader, [])]
            named = [name for name in header if name]
            if len(named) < 2 or len(set(named)) < len(named):
                raise BadSample(
                    f"the header has {len(named)} columns with a name, {len(set(named))} of them different",
                    where=f"{path}:1",
                    mend="check delimiter in the recipe; each column needs its own name",
                )
            while True:
                number = reader.line_num + 1
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield BadSample(f"not CSV: {error}", where=f"{path}:{number}", mend="fix the quoting of the row")
                    continue
                if any(cell.strip() for cell in cells):
                    yield _cells(header, cells, f"{path}:{number}", number, mend)
    except UnicodeDecodeError as error:
        raise BadSample(f"not {encoding} at byte {error.start}", where=str(path), mend=mend) from error
    except LookupError as error:
        raise BadSample(f"no encoding is called {encoding!r}", where=str(path), mend=mend) from error


def _cells(header: list[str], cells: list[str], where: str, number: int, mend: str) -> Row | BadSample:
    if len(cells) != len(header):
        return BadSample(
            f"{len(cells)} cells for {len(header)} columns", where=where, mend="quote cells that hold the delimiter"
        )
    if any("\udc80" <= letter <= "\udcff" for cell in cells if not cell.isascii() for letter in cell):
        return BadSample("not UTF-8", where=where, mend=mend)
    return Row(
        where=where, number=number, values={name: cell for name, cell in zip(header, cells, strict=True) if name}
    )


def count_rows(filled: Filled) -> int:
    """About how many rows there are, for the progress bar: lines or items; of DICOM the reports."""
    reports = filled.recipe.reports
    if filled.recipe.format == "dicom" and reports is not None:
        place = filled.path(reports.path)
        return _lines(place) if place.is_file() else sum(1 for _ in place.rglob("*.txt"))
    total = 0
    for written in filled.recipe.paths:
        path = filled.path(written)
        if not path.is_file():
            continue
        kind = kind_of_table(path)
        if kind == "json list":
            try:
                total += sum(1 for item in read_items(path) if not isinstance(item, BadSample))
            except (UnicodeDecodeError, BadSample):
                continue  # Reading the rows refuses the file and says why.
        elif kind is not None and kind != "datasets":
            total += _lines(path)
    return total


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)
