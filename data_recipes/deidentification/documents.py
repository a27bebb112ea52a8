"""Texts, JSON lines and CSV files without identifiers, streamed row by row; everything but free text keeps its form."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from medvlm.data_recipes.deidentification.clean_names import clean_path
from medvlm.data_recipes.deidentification.keyed import Key
from medvlm.data_recipes.deidentification.known_people import Known
from medvlm.data_recipes.deidentification.language_model import finder_of_command
from medvlm.data_recipes.deidentification.masking import Finder, finder_of_words, mask
from medvlm.data_recipes.deidentification.options import Options, Tally
from medvlm.data_recipes.deidentification.text import find_identifiers
from medvlm.data_recipes.errors import BadSample

_FREE_TEXT = """
text content value report findings impression indication history comparison technique answer answers question
question_rephrase caption prompt chosen rejected response output input instruction conclusion recommendation choices
options_text rationale title description note notes comment comments body
"""
FREE_TEXT: frozenset[str] = frozenset(_FREE_TEXT.split())
"""Keys of JSON objects whose strings, and lists of strings, are free text."""

_MANIFEST = ("sample_id", "patient_id", "study_id", "source", "licence", "split", "messages", "preference", "metadata",
             "conversations")  # fmt: skip
_IDS = ("sample_id", "patient_id", "study_id")
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}")

PatientOf = Callable[[list[str]], tuple[str | None, Known]]
"""From paths of visuals to the patient of their DICOM headers (None: none or several) and what is known of them."""


@lru_cache(maxsize=256)
def _finder(known: Known) -> Finder:
    return finder_of_words(known.names, known.numbers)


@dataclass(frozen=True, kw_only=True)
class Cleaner:
    """How texts of one file are cleaned.

    Attributes:
        folder: of the source file, to which visual paths may be relative.
        top: the source folder; visuals outside it are refused.
        known: words of the patients near the file.
        patient: the patient of the whole file, where there is one.
        patient_of: for rows with visuals.
    """

    key: Key
    options: Options
    folder: Path
    top: Path
    known: Known
    patient: str | None
    patient_of: PatientOf

    def finders(self, known: Known) -> tuple[Finder, ...]:
        found: list[Finder] = [_finder(known)]
        if self.options.command:
            found.append(finder_of_command(self.options.command))
        return tuple(found)

    def days(self, patient: str | None) -> int | None:
        """The offset of ``patient``; None masks dates."""
        return self.key.days(patient) if patient is not None and "dates" in self.options.keep else None

    def clean(self, text: str, *, patient: str | None, known: Known, tally: Tally) -> str:
        return mask(
            text,
            more=self.finders(known),
            days=self.days(patient),
            date_order=self.options.date_order,
            tally=tally,
        )[0]

    def missed(self, text: str, known: Known) -> Iterator[str]:
        """Kinds of what a look at the cleaned ``text`` still finds; ISO dates are ours where dates are shifted."""
        for one in (*find_identifiers(text), *_finder(known)(text)):
            ours = one.kind == "date" and "dates" in self.options.keep and _ISO.fullmatch(text[one.start : one.end])
            if not ours:
                yield one.kind


def clean_text_file(source: bytes, cleaner: Cleaner, tally: Tally, where: str) -> bytes:
    """A text file as a whole.

    Raises:
        BadSample: it is not UTF-8.
    """
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadSample(f"not UTF-8 at byte {error.start}", where=where, mend="save the file as UTF-8") from error
    return cleaner.clean(text, patient=cleaner.patient, known=cleaner.known, tally=tally).encode()


def clean_json_line(line: str, cleaner: Cleaner, tally: Tally, where: str) -> str:
    """One row of a JSON lines file: free texts masked, visual paths renamed like the files, their hashes dropped.

    Raises:
        BadSample: not a JSON object, or a visual outside the source folder.
    """
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadSample(f"not JSON: {error.msg} at column {error.colno}", where=where, mend="fix the line") from error
    if not isinstance(row, dict):
        raise BadSample(f"expected an object, got {type(row).__name__}", where=where, mend="write an object")
    patient, known = patient_of_row(row, cleaner)
    row = _cleaned(row, "", cleaner, tally, patient, known, where)
    if cleaner.options.hash_ids:
        for name in _IDS:
            if isinstance(row.get(name), str):
                purpose = "patient" if name == "patient_id" else name
                row[name] = cleaner.key.pseudonym(row[name], purpose)
                tally.removed[name] += 1
    return json.dumps(row, ensure_ascii=False)


def patient_of_row(row: dict[str, Any], cleaner: Cleaner) -> tuple[str | None, Known]:
    """Whose row it is, by the DICOM headers of its visuals or by its patient_id, and what is known of them."""
    paths = list(_visual_paths(row))
    patient, known = cleaner.patient_of(paths) if paths else (None, cleaner.known)
    if patient is None and isinstance(row.get("patient_id"), str):
        patient = f"manifest\0{row['patient_id']}"
    return patient, known


def _visual_paths(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("path"), str) and "type" in value:
            yield value["path"]
        for inner in value.values():
            yield from _visual_paths(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _visual_paths(inner)


def _cleaned(
    value: Any, name: str, cleaner: Cleaner, tally: Tally, patient: str | None, known: Known, where: str
) -> Any:
    if isinstance(value, dict):
        visual = isinstance(value.get("path"), str) and "type" in value
        return {
            key: _renamed(inner, cleaner, where)
            if visual and key == "path"
            else _cleaned(inner, key, cleaner, tally, patient, known, where)
            for key, inner in value.items()
            if not (visual and key == "sha256")
        }
    if isinstance(value, list):
        return [_cleaned(inner, name, cleaner, tally, patient, known, where) for inner in value]
    if isinstance(value, str) and name.lower() in FREE_TEXT:
        return cleaner.clean(value, patient=patient, known=known, tally=tally)
    return value


def _renamed(path: str, cleaner: Cleaner, where: str) -> str:
    """The path of a visual as it is called in the output."""
    keep = cleaner.options.keep_names
    if not Path(path).is_absolute():
        return clean_path(path, cleaner.key, keep=keep)
    if not Path(path).is_relative_to(cleaner.top):
        raise BadSample(
            "a visual outside the folder that is de-identified",
            where=where,
            mend="give a folder that holds the manifest and its visuals",
        )
    inside = clean_path(os.path.relpath(path, cleaner.top), cleaner.key, keep=keep)
    here = clean_path(os.path.relpath(cleaner.folder, cleaner.top), cleaner.key, keep=keep)
    return Path(os.path.relpath(inside, here)).as_posix()


def strings_of(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(place, string) of every string in a JSON value, keys of objects included.

    A place is the outermost key where that is one of manifests or of texts, which says nothing of a patient.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            place = name or (key if key in FREE_TEXT or key in _MANIFEST else "another key")
            yield place, str(key)
            yield from strings_of(inner, place)
    elif isinstance(value, list):
        for inner in value:
            yield from strings_of(inner, name)
    elif isinstance(value, str):
        yield name, value
