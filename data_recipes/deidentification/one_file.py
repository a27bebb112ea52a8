"""One source file -> one clean file, looked at a second time: what was removed, and what may have been missed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medvlm.data_recipes.deidentification import csv_rows, documents
from medvlm.data_recipes.deidentification.keyed import Key
from medvlm.data_recipes.deidentification.known_people import Known
from medvlm.data_recipes.deidentification.language_model import BadAnswer
from medvlm.data_recipes.deidentification.one_dicom import Leak, clean_dicom, leaks_of
from medvlm.data_recipes.deidentification.options import Options, Tally
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.whole_file import writing

Format = Literal["dicom", "text", "rows", "table"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One file to clean.

    Attributes:
        source: the file.
        name: what it is called in the output, relative, without anything of a patient; the only name that is written.
        state: size and time of change of the source, so that a resumed run sees a changed one.
        known: words of the patients near the file (texts only).
        patient: of the file, when there is one near it.
    """

    source: Path
    name: str
    format: Format
    state: str
    known: Known
    patient: str | None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a file; holds no value of it.

    Attributes:
        removed: kind -> how often.
        leaks: what a second look finds in the output.
        refused: rows of quarantine.jsonl.
        written: whether there is an output file.
    """

    name: str
    state: str
    format: str
    written: bool
    removed: dict[str, int]
    leaks: list[Leak]
    refused: list[dict[str, str | None]]


def clean_file(
    task: Task, *, key: Key, options: Options, top: Path, out: Path, patient_of: documents.PatientOf
) -> Outcome:
    """Clean one file; what cannot be cleaned is refused, never copied."""
    tally = Tally()
    leaks: list[Leak] = []
    refused: list[dict[str, str | None]] = []
    written = False
    target = out / task.name
    cleaner = documents.Cleaner(
        key=key, options=options, folder=task.source.parent, top=top, known=task.known, patient=task.patient,
        patient_of=patient_of,
    )  # fmt: skip
    try:
        if task.format == "dicom":
            leaks += clean_dicom(task.source, target, task.name, key=key, options=options, tally=tally)
        elif task.format == "text":
            with writing(target) as stream:
                stream.write(documents.clean_text_file(task.source.read_bytes(), cleaner, tally, task.name))
            leaks += leaks_of(task.name, "text", cleaner.missed(target.read_text(encoding="utf-8"), task.known))
        else:
            rows = _rows if task.format == "rows" else _table
            with writing(target) as stream:
                for line in rows(task, cleaner, tally, leaks):
                    if isinstance(line, BadSample):
                        refused.append(line.to_dict())
                    else:
                        stream.write(line.encode())
        written = True
    except BadSample as bad:
        # Readers name the source file, whose name may be a patient's.
        refused.append(BadSample(bad.reason, where=task.name, mend=bad.mend).to_dict())
    except BadAnswer as error:
        refused.append(BadSample(str(error), where=task.name, mend="mend the command of --llm-command").to_dict())
    except OSError as error:
        reason = f"cannot be read or written ({error.strerror})"
        refused.append(BadSample(reason, where=task.name, mend="check disk and permissions").to_dict())
    if not written:
        target.unlink(missing_ok=True)  # a DICOM file whose second look failed, or one of an earlier run
    return Outcome(
        name=task.name, state=task.state, format=task.format, written=written, removed=dict(tally.removed),
        leaks=leaks if written else [], refused=refused,
    )  # fmt: skip


# --- rows ----------------------------------------------------------------------------------------------------


def _rows(task: Task, cleaner: documents.Cleaner, tally: Tally, leaks: list[Leak]) -> Iterator[str | BadSample]:
    with task.source.open(encoding="utf-8-sig", errors="strict") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                where = f"{task.name}:{number}"
                try:
                    cleaned = documents.clean_json_line(line, cleaner, tally, where)
                except BadSample as bad:
                    yield bad
                    continue
                known = documents.patient_of_row(json.loads(line), cleaner)[1]
                for place, text in documents.strings_of(json.loads(cleaned)):
                    leaks += leaks_of(where, place, cleaner.missed(text, known))
                yield cleaned + "\n"
        except UnicodeDecodeError as error:
            raise BadSample("not UTF-8", where=task.name, mend="save the file as UTF-8") from error


def _table(task: Task, cleaner: documents.Cleaner, tally: Tally, leaks: list[Leak]) -> Iterator[str | BadSample]:
    delimiter = "\t" if task.source.suffix.lower() == ".tsv" else ","
    rows = csv_rows.read_rows(task.source, task.name)
    _, header = next(rows, (1, []))
    csv_rows.require_columns(header, cleaner.options, task.name)
    yield csv_rows.csv_line(header, delimiter)
    kinds = (kind for cell in header for kind in cleaner.missed(cell, task.known))
    leaks += leaks_of(f"{task.name}:1", "header", kinds)
    for number, cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        where = f"{task.name}:{number}"
        try:
            cleaned = csv_rows.clean_row(cells, header, cleaner, tally, where)
        except BadSample as bad:
            yield bad
            continue
        for column, cell in enumerate(cleaned, start=1):
            leaks += leaks_of(where, f"column {column}", cleaner.missed(cell, task.known))
        yield csv_rows.csv_line(cleaned, delimiter)
