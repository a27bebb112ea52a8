"""Names and numbers that the DICOM headers of a folder tell, to be searched in texts and pixels of the same patient.

They are held in memory for the run and never written.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from medvlm.data_recipes.deidentification.dicom_profile import patient_of
from medvlm.data_recipes.deidentification.tags import PLACEHOLDER
from medvlm.data_recipes.readers.dicom_header import DICOM_ERRORS, quiet
from medvlm.data_recipes.readers.refusals import decoding

_NAMES = (
    "PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "ResponsiblePerson",
    "ReferringPhysicianName", "ConsultingPhysicianName", "PerformingPhysicianName", "OperatorsName",
    "NameOfPhysiciansReadingStudy", "PhysiciansOfRecord", "RequestingPhysician",
)  # fmt: skip
_NUMBERS = ("PatientID", "OtherPatientIDs", "AccessionNumber", "PatientTelephoneNumbers")
_TAGS = [*_NAMES, *_NUMBERS, "IssuerOfPatientID", "StudyInstanceUID"]


@dataclass(frozen=True, kw_only=True)
class Known:
    """Words of the people around one or more patients."""

    names: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()

    def __or__(self, other: Known) -> Known:
        return Known(names=self.names | other.names, numbers=self.numbers | other.numbers)


@dataclass(kw_only=True)
class People:
    """Who lies in which folder; ``patients`` and ``known`` grow while headers are read."""

    patients: dict[Path, set[str]] = field(default_factory=lambda: defaultdict(set))
    known: dict[str, Known] = field(default_factory=dict)

    def add(self, path: Path) -> None:
        """Read the header of a DICOM file.

        Raises:
            BadSample: it cannot be read.
        """
        mend = "copy the file again from its source, or leave it out"
        with decoding(path, "a DICOM header", mend, also=DICOM_ERRORS, quote=False), quiet():
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=_TAGS)
            patient = patient_of(dataset)
            words = known_of(dataset)
        self.patients[path.parent].add(patient)
        self.known[patient] = self.known.get(patient, Known()) | words

    def near(self, path: Path, top: Path) -> set[str]:
        """Patients whose files lie in the folder of ``path``, else below it, else around it, up to ``top``."""
        for folder in (path if path.is_dir() else path.parent, *path.parents):
            if folder in self.patients:
                return self.patients[folder]
            below = [found for place, found in self.patients.items() if folder in place.parents]
            if below:
                return set().union(*below)
            if folder == top:
                break
        return set()

    def of(self, patients: Iterable[str]) -> Known:
        """What is known of all these patients."""
        together = Known()
        for patient in patients:
            together = together | self.known.get(patient, Known())
        return together


def known_of(dataset: Dataset) -> Known:
    """Words of names, and numbers, of one header."""
    names = (str(value) for keyword in _NAMES for value in _values(dataset, keyword))
    numbers = (str(value).strip() for keyword in _NUMBERS for value in _values(dataset, keyword))
    return Known(
        names=frozenset(
            word
            for name in names
            for word in re.split(r"[\W\d_]+", name)
            if len(word) >= 3 and not PLACEHOLDER.fullmatch(word)
        ),
        numbers=frozenset(number for number in numbers if len(number) >= 4 and not PLACEHOLDER.fullmatch(number)),
    )


def _values(dataset: Dataset, keyword: str) -> list:
    value = dataset.get(keyword)
    if value is None:
        return []
    return list(value) if isinstance(value, pydicom.multival.MultiValue) else [value]
