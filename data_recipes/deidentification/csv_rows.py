"""CSV files: chosen columns cleaned, id columns replaced by pseudonyms, the rest carried over."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from medvlm.data_recipes.deidentification.documents import Cleaner
from medvlm.data_recipes.deidentification.options import Options, Tally
from medvlm.data_recipes.errors import BadSample


def read_rows(path: Path, where: str) -> Iterator[tuple[int, list[str]]]:
    """(line where it starts, cells) of each row of a CSV file, the header first.

    Raises:
        BadSample: not UTF-8, or not CSV.
    """
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, delimiter=delimiter)
        start = 1
        try:
            for cells in reader:
                yield start, cells
                start = reader.line_num + 1
        except UnicodeDecodeError as error:
            raise BadSample("not UTF-8", where=where, mend="save the file as UTF-8") from error
        except csv.Error as error:
            raise BadSample(f"not CSV: {error}", where=where, mend="fix the quoting") from error


def csv_line(cells: list[str], delimiter: str) -> str:
    """One row as CSV, ended by a newline."""
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, lineterminator="\n").writerow(cells)
    return stream.getvalue()


def require_columns(header: list[str], options: Options, where: str) -> None:
    """Refuse a table of which no column to clean is named, or a named one is missing everywhere.

    Raises:
        BadSample: see above; the message names no column of the file.
    """
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise BadSample(
            "its header is one cell: another character than the comma (in .tsv the tab) stands between the cells",
            where=where,
            mend="save the table with commas, or as .tsv with tabs",
        )
    if not set(options.columns) & set(header):
        raise BadSample(
            f"none of its {len(header)} columns is named with --columns",
            where=where,
            mend="name the columns that hold free text; the other columns are carried over and only looked at",
        )


def clean_row(cells: list[str], header: list[str], cleaner: Cleaner, tally: Tally, where: str) -> list[str]:
    """One row of a table: chosen columns masked, id columns replaced by pseudonyms.

    Raises:
        BadSample: a row of another length than the header.
    """
    if len(cells) != len(header):
        raise BadSample(
            f"{len(cells)} cells for {len(header)} columns", where=where, mend="quote cells that hold commas"
        )
    options = cleaner.options
    patient = cleaner.patient
    if options.patient_column in header:
        patient = f"table\0{cells[header.index(options.patient_column)]}"  # type: ignore[arg-type]
    out = []
    for name, cell in zip(header, cells, strict=True):
        if name in options.id_columns and cell.strip():
            tally.removed["id columns"] += 1
            out.append(cleaner.key.pseudonym(cell))
        elif name in options.columns:
            out.append(cleaner.clean(cell, patient=patient, known=cleaner.known, tally=tally))
        else:
            out.append(cell)
    return out
