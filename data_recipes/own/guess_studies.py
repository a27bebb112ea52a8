"""DICOM files and texts beside them -> which report belongs to which study, told by what matches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pydicom

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.own.look import Found, Table, encoding_of
from medvlm.data_recipes.own.settings import Reports
from medvlm.data_recipes.readers.dicom_header import DICOM_ERRORS
from medvlm.data_recipes.readers.refusals import decoding

MOST_HEADERS = 500
TAGS: dict[str, Literal["study_uid", "accession", "patient"]] = {
    "StudyInstanceUID": "study_uid", "AccessionNumber": "accession", "PatientID": "patient",
}  # fmt: skip
By = Literal["study_uid", "accession", "patient", "folder"]


@dataclass(frozen=True, kw_only=True)
class StudyGuess:
    """Where the DICOM files and their reports are.

    Attributes:
        folder: outermost folder of the DICOM files.
        reports: None when nothing matches.
        why: what matches.
        with_patient: how many of the headers that were read have a PatientID.
        headers: how many were read.
        table: the CSV file of the reports.
        encoding: of the .txt files or of the table.
    """

    folder: Path
    reports: Reports | None
    why: str
    with_patient: int
    headers: int
    table: Table | None = None
    encoding: str = "utf-8"


def guess_studies(found: Found) -> StudyGuess:
    """Compare the tags of the first MOST_HEADERS files, and the names of their folders, with texts and columns."""
    keys: dict[By, set[str]] = {"study_uid": set(), "accession": set(), "folder": set(), "patient": set()}
    with_patient = headers = 0
    for path in _spread(found.dicom):
        try:
            values = _tags(path)
        except BadSample:
            continue  # Building names the file and the reason.
        headers += 1
        for tag, key in TAGS.items():
            if values[tag]:
                keys[key].add(values[tag])
        with_patient += bool(values["PatientID"])
        keys["folder"] |= set(path.parent.relative_to(found.root.parent).parts)
    folder = _common([path.parent for path in found.dicom])
    best: tuple[int, Reports | None, str, Table | None] = (0, None, "nothing matches", None)
    places: dict[Path, list[str]] = {}
    for path in found.texts:
        if path.suffix.lower() == ".txt":
            places.setdefault(path.parent, []).append(path.stem)
    base = _common(list(places)) if places else folder
    stems = {stem for names in places.values() for stem in names}
    for by, values_of in keys.items():
        count = len(stems & values_of)
        if count > best[0]:
            why = f"{count} of {len(stems)} .txt files are named by the {by.replace('_', ' ')}"
            best = (count, Reports(path=str(base), by=by), why, None)
    for table in found.tables:
        if table.kind != "csv":
            continue
        text = max(table.columns, key=lambda name: sum(len(str(row.get(name) or "")) for row in table.rows))
        for column in table.columns:
            written = {str(row.get(column) or "").strip() for row in table.rows} - {""}
            for by, values_of in keys.items():
                count = len(written & values_of)
                if count > best[0] and column != text:
                    why = f"{count} rows of {table.path.name} hold a {by.replace('_', ' ')} in {column!r}"
                    best = (count, Reports(path=str(table.path), by=by, column=column, text=text), why, table)
    spoken = {encoding_of(path) for path in found.texts[:MOST_HEADERS] if path.suffix.lower() == ".txt"}
    odd = next(iter(spoken - {"utf-8"}), "utf-8")
    return StudyGuess(
        folder=folder, reports=best[1], why=best[2], with_patient=with_patient, headers=headers, table=best[3],
        encoding=best[3].encoding if best[3] is not None else odd,
    )  # fmt: skip


def _spread(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """At most MOST_HEADERS of them, evenly."""
    step = max(1, len(paths) // MOST_HEADERS)
    return paths[::step][:MOST_HEADERS]


def _tags(path: Path) -> dict[str, str]:
    with decoding(path, "a DICOM header", "export the file again", also=DICOM_ERRORS, quote=False):
        data = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(TAGS))
        return {name: str(data.get(name) or "").strip() for name in TAGS}


def _common(folders: list[Path]) -> Path:
    first = folders[0]
    for place in (first, *first.parents):
        if all(place == folder or place in folder.parents for folder in folders):
            return place
    return first
