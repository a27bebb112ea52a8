"""Whose a row is and to which split it belongs: decided by the recipe, never guessed."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.own.rows import SourceRow
from medvlm.data_recipes.own.settings import Filled
from medvlm.data_recipes.own.visuals import written_text
from medvlm.data_recipes.sample import Split, VisualRef
from medvlm.data_recipes.series import hashed, read_header
from medvlm.data_recipes.splits import split_of


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Ids for a manifest: hashes of what the data say."""

    patient_id: str
    study_id: str
    split: Split


def first_header_patient(path: Path, where: str) -> str:
    """Hash of PatientID of a DICOM file, or of the first file of a series folder.

    Raises:
        BadSample: not DICOM, or without PatientID.
    """
    file = next((one for one in sorted(path.iterdir()) if one.is_file()), path) if path.is_dir() else path
    patient = read_header(file).patient
    if patient is None:
        raise BadSample(f"{file.name} has no PatientID", where=where, mend="tell the patient by path, folder or column")
    return patient


class Owners:
    """Finds the owner of a row; remembers the split of every patient, because none may lie in two."""

    def __init__(self, filled: Filled) -> None:
        """
        Raises:
            BadSample: a list of patients is missing or names one twice.
        """
        self._filled, self._recipe, self._patient = filled, filled.recipe, filled.patient
        self._splits: dict[bytes, tuple[Split, str]] = {}
        self._listed = _read_lists(filled)

    def of(self, source: SourceRow, refs: Sequence[VisualRef], *, stated: str | None = None) -> Owner:
        """The owner of a row that shows ``refs``.

        Args:
            stated: hash of PatientID, where the headers have been read already.

        Raises:
            BadSample: nothing tells the patient or the split, or the patient lies in another split already.
        """
        row = source.row
        raw = stated if stated and self._patient.dicom else self._raw_patient(source, refs)
        patient_id = f"{self._recipe.name}/{hashed(raw)}"
        study_id = patient_id
        if self._recipe.fields.study is not None:
            study = written_text(row, self._recipe.fields.study)
            if not study:
                raise BadSample(
                    f"the study ({self._recipe.fields.study!r}) is empty", where=row.where, mend="fill it in"
                )
            study_id = f"{patient_id}/{hashed(study)}"
        split = self._split(source, raw, patient_id)
        self.claim(patient_id, split, row.where, source.key)
        return Owner(patient_id=patient_id, study_id=study_id, split=split)

    def claim(self, patient_id: str, split: Split, where: str, key: str) -> None:
        """Remember the split of a patient, and the row that settled it.

        Raises:
            BadSample: the patient lies in another split already.
        """
        known, first = self._splits.setdefault(bytes.fromhex(patient_id[-16:]), (split, key))
        if known != split:
            raise BadSample(
                f"the patient of this {split} row is in {known} already ({first})",
                where=where,
                mend="send all rows of a patient to one split, or let split: shares decide",
            )

    def split_of_patient(self, raw: str, patient_id: str, where: str) -> Split:
        """By list or by share; for data without rows of their own."""
        by = self._recipe.split
        if by.all is not None:
            return by.all
        if by.lists:
            # PatientID comes hashed from the header; everything else as written.
            found = self._listed.get(raw.removeprefix("dicom/") if self._patient.dicom else hashed(raw))
            if found is None:
                raise BadSample("the patient is in none of split.lists", where=where, mend="add the id to one list")
            return found
        if by.shares:
            return split_of(patient_id, by.shares, seed=by.seed)
        raise BadSample("nothing tells the split", where=where, mend="use split: shares, lists or all")

    def _raw_patient(self, source: SourceRow, refs: Sequence[VisualRef]) -> str:
        row, patient = source.row, self._patient
        if patient.row:
            return source.key
        if patient.column is not None:
            value = written_text(row, patient.column)
            if not value:
                raise BadSample(
                    f"the patient ({patient.column!r}) is empty", where=row.where, mend="fill it in or drop the row"
                )
            return value
        if not refs:
            raise BadSample(
                "the row has no visual, and the patient is told from the visual",
                where=row.where,
                mend="write patient: {column: NAME} in the recipe, or drop the row",
            )
        path = Path(refs[0].path)
        if patient.dicom:
            return first_header_patient(path, row.where)
        place = Path(os.path.relpath(path, self._filled.folder)).as_posix()
        if patient.folder:
            return place if path.is_dir() else Path(place).parent.as_posix()
        return patient_in_path(patient.path or "", place, row.where)

    def _split(self, source: SourceRow, raw: str, patient_id: str) -> Split:
        by = self._recipe.split
        if by.column is not None:
            written = written_text(source.row, by.column)
            if written not in by.names:
                raise BadSample(
                    f"the split ({by.column!r}) is {written!r}",
                    where=source.row.where,
                    mend=f"use one of {', '.join(by.names)}, or say in split.names what it means",
                )
            return by.names[written]
        if by.files:
            if source.file not in by.files:
                raise BadSample(
                    f"split.files does not name {source.file!r}",
                    where=source.row.where,
                    mend=f"it names {', '.join(by.files)}; add this file",
                )
            return by.files[source.file]
        return self.split_of_patient(raw, patient_id, source.row.where)


def patient_in_path(pattern: str, place: str, where: str) -> str:
    """What the group of ``pattern`` finds in a path.

    Raises:
        BadSample: nothing.
    """
    found = re.search(pattern, place)
    if found is None or not found[1]:
        raise BadSample(
            f"patient.path {pattern!r} finds nothing in the path of the visual",
            where=where,
            mend="correct the regular expression in the recipe; paths are relative to it, with / between folders",
        )
    return found[1]


def _read_lists(filled: Filled) -> dict[str, Split]:
    listed: dict[str, Split] = {}
    for name, written in filled.recipe.split.lists.items():
        path = filled.path(written)
        if not path.is_file():
            raise BadSample("no such file", where=str(path), mend="correct split.lists in the recipe")
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
            if not line.strip():
                continue
            known = listed.setdefault(hashed(line.strip()), name)  # type: ignore[arg-type]
            if known != name:
                raise BadSample(
                    f"the patient is listed in {known} too", where=f"{path}:{number}", mend="list each patient once"
                )
    return listed
