"""CSV tables too large to hold, gzipped or not, row by row; cells may hold line breaks."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.tables import Row, require_columns


def stream_csv(path: Path, *, required: Iterable[str]) -> Iterator[Row | BadSample]:
    """Rows of ``path``, opened through gzip when its name ends in .gz; a broken row comes out as BadSample.

    A quote that is not closed ends in a refusal of the file, because csv takes no cell above 131,072 characters.
    ``Row.number`` counts rows of the table with the header as 1, not lines.

    Raises:
        BadSample: the file cannot be opened, has another encoding, or lacks a required column.
    """
    try:
        with _opened(path) as lines:
            reader = csv.reader(lines)
            header = next(reader, [])
            require_columns(header, required, path)
            yield from _rows(path, reader, header)
    except UnicodeDecodeError as error:
        raise BadSample("not UTF-8", where=str(path), mend="use the table as published") from error
    except (EOFError, zlib.error, OSError) as error:
        raise BadSample(
            f"cannot be read to its end ({type(error).__name__})", where=str(path), mend="download the table again"
        ) from error
    except csv.Error as error:
        raise BadSample(f"not CSV: {error}", where=str(path), mend="download the table again") from error


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")  # type: ignore[return-value]
    return path.open(encoding="utf-8-sig", newline="")


def _rows(path: Path, reader: Iterator[list[str]], header: list[str]) -> Iterator[Row | BadSample]:
    for number, cells in enumerate(reader, start=2):
        if not any(cell.strip() for cell in cells):
            continue
        where = f"{path}:{number}"
        if len(cells) != len(header):
            yield BadSample(
                f"{len(cells)} cells for {len(header)} columns", where=where, mend="use the table as published"
            )
            continue
        yield Row(where=where, number=number, values=dict(zip(header, cells, strict=True)))
