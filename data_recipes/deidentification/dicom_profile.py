"""The Basic Application Level Confidentiality Profile of PS3.15 on a data set, with its sequences.

Where Table E.1-1 leaves a choice that depends on the object (X/Z, X/D, Z/D, ...), the attribute is kept with an empty
or dummy value, so that an object that needs it stays valid. Sequences of action Z or D are emptied.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

from medvlm.data_recipes.deidentification.basic_profile import KEPT, action_of
from medvlm.data_recipes.deidentification.dicom_dates import moved
from medvlm.data_recipes.deidentification.dicom_numbers import is_number, parse
from medvlm.data_recipes.deidentification.keyed import Key
from medvlm.data_recipes.deidentification.masking import Finder, mask
from medvlm.data_recipes.deidentification.options import CODES, Options, Tally
from medvlm.data_recipes.deidentification.tags import name_of
from medvlm.data_recipes.readers.dicom_header import DICOM_ERRORS, quiet
from medvlm.data_recipes.readers.refusals import decoding

METHOD = "medvlm: PS3.15 2026c table E.1-1, sequences included"
TEXTS = ("LO", "SH", "ST", "LT", "UT", "UC")

_DUMMIES: dict[str, Any] = {
    "AE": "ANONYMIZED", "CS": "ANONYMIZED", "LO": "ANONYMIZED", "LT": "ANONYMIZED", "PN": "ANONYMIZED",
    "SH": "ANONYMIZED", "ST": "ANONYMIZED", "UC": "ANONYMIZED", "UT": "ANONYMIZED", "UR": "http://anonymized.invalid",
    "AS": "000Y", "DA": "19000101", "DT": "19000101000000", "TM": "000000", "DS": "0", "IS": "0",
    "FD": 0.0, "FL": 0.0, "SS": 0, "US": 0, "SL": 0, "UL": 0, "SV": 0, "UV": 0, "AT": 0,
}  # fmt: skip


def patient_of(dataset: Dataset) -> str:
    """What stands for the patient in keyed values: issuer and PatientID, else the name, else the study.

    Two ids of one patient at two issuers are two patients here.
    """
    identity = str(dataset.get("PatientID") or "").strip()
    if identity:
        return f"{str(dataset.get('IssuerOfPatientID') or '').strip()}\0{identity}"
    name = str(dataset.get("PatientName") or "").strip()
    return f"\0name\0{name}" if name else f"\0study\0{dataset.get('StudyInstanceUID', '')}"


def apply_profile(dataset: Dataset, *, key: Key, options: Options, where: Path, more: Iterable[Finder] = ()) -> Tally:
    """De-identify ``dataset`` in place; pixels, geometry, rescale and windows are not touched.

    Args:
        where: the file, named when an attribute cannot be parsed.
        more: finders of names for the texts that stay.

    Returns:
        How many attributes were removed, emptied or replaced, by keyword. No values.

    Raises:
        BadSample: an attribute that cannot be parsed.
    """
    tally = Tally()
    mend = "export the file again, or leave it out"
    with decoding(where, "DICOM attributes", mend, also=DICOM_ERRORS, quote=False), quiet():
        parse(dataset)
    with quiet():
        patient = patient_of(dataset)
        run = _Run(key, options, patient, tuple(more), tally)
        run.walk(dataset)
        pseudonym = key.pseudonym(patient)
        dataset.PatientID = dataset.PatientName = pseudonym
        _state(dataset, options)
        _write_meta(dataset)
    return tally


class _Run:
    """One data set being de-identified."""

    def __init__(self, key: Key, options: Options, patient: str, more: tuple[Finder, ...], tally: Tally) -> None:
        self.key, self.options, self.more, self.tally = key, options, more, tally
        self.days = key.days(patient) if "dates" in options.keep else None
        self.private = {entry.strip().lower() for entry in options.private}

    def walk(self, dataset: Dataset) -> None:
        creators = {
            (known.group, known.element): str(dataset[known].value).strip().lower()
            for known in list(dataset.keys())
            if known.is_private_creator
        }
        used: set[int] = set()
        for tag in list(dataset.keys()):
            if is_number(dataset, tag):
                continue  # as it stands in the file: decoding and writing may round
            element = dataset[tag]
            if element.tag.is_private:
                self._private(dataset, element, creators, used)
            else:
                self._standard(dataset, element)
        for group, block in creators:
            creator = group << 16 | block
            if creator not in used and creator in dataset:
                del dataset[creator]

    def _private(self, dataset: Dataset, element: DataElement, creators: dict, used: set[int]) -> None:
        if element.tag.is_private_creator:
            return
        group, block = element.tag.group, element.tag.element >> 8
        creator = creators.get((group, block), "")
        if f"{group:04x},{creator},{element.tag.element & 0xFF:02x}" in self.private:
            used.add(group << 16 | block)
            if element.VR == "SQ":
                for item in element.value or ():
                    self.walk(item)
            return
        self.tally.removed["private attributes"] += 1
        del dataset[element.tag]

    def _standard(self, dataset: Dataset, element: DataElement) -> None:
        tag, vr = element.tag, element.VR
        if tag.group & 0xFF00 in (0x5000, 0x6000):
            self.tally.removed["overlays and curves"] += 1
            del dataset[tag]  # the whole group: what is left of an overlay without its data is no valid object
            return
        action = action_of(tag)
        if action is None:
            self._unlisted(dataset, element)
            return
        kept = next((option for option in self.options.keep if tag in KEPT[option]), None)
        if kept is not None and self._keep(element, kept):
            return
        if vr == "SQ" and action == "X/Z/U*":
            for item in element.value or ():
                self.walk(item)
            return
        empty = element.is_empty
        if action == "X":
            del dataset[tag]
        elif vr == "UI" and "U" in action:
            element.value = _each(element.value, self.key.uid) if not empty else element.value
        elif action in ("Z", "X/Z"):
            element.value = Sequence() if vr == "SQ" else None
        else:
            element.value = self._dummy(vr, element)
        if not empty:
            self.tally.removed[name_of(element)] += 1

    def _dummy(self, vr: str, element: DataElement) -> Any:
        if vr == "SQ":
            return Sequence()
        if vr == "UI":
            return _each(element.value, self.key.uid)
        return _DUMMIES.get(vr, b"\0\0")

    def _keep(self, element: DataElement, option: str) -> bool:
        """True when the option spares the attribute; its value may be shifted or cleaned."""
        if element.VR == "SQ":
            for item in element.value or ():
                self.walk(item)
            return True
        if element.is_empty or element.VR == "TM":
            return True
        if option == "dates":
            return self._move(element)
        if option == "descriptors":
            if element.VR not in TEXTS:
                return False
            self._clean(element)
        elif element.VR == "AS":
            element.value = _each(element.value, _age_up_to_90)
        elif element.VR in TEXTS:
            self._clean(element)
        return True

    def _move(self, element: DataElement) -> bool:
        assert self.days is not None
        days = self.days
        values = [moved(str(value), days) for value in _listed(element.value)]
        if None in values:
            return False  # no whole date: nothing to shift, so that the profile acts
        element.value = values[0] if len(values) == 1 else values
        self.tally.removed["dates shifted"] += 1
        return True

    def _unlisted(self, dataset: Dataset, element: DataElement) -> None:
        """What the table does not name: sequences are entered, names emptied, dates treated as dates, texts cleaned."""
        vr = element.VR
        if vr == "SQ":
            for item in element.value or ():
                self.walk(item)
        elif element.is_empty:
            return
        elif vr == "PN":
            element.value = None
            self.tally.removed[name_of(element)] += 1
        elif vr in ("DA", "DT"):
            if self.days is None or not self._move(element):
                element.value = None
                self.tally.removed[name_of(element)] += 1
        elif vr == "UN" or vr in ("DS", "IS"):  # numbers that are none could say anything
            self.tally.removed["unknown attributes"] += 1
            del dataset[element.tag]
        elif vr in TEXTS:
            self._clean(element)

    def _clean(self, element: DataElement) -> None:
        order = self.options.date_order
        element.value = _each(
            element.value,
            lambda text: mask(text, more=self.more, days=self.days, date_order=order, tally=self.tally)[0],
        )


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue" else [value]


def _each(value: Any, change: Any) -> Any:
    values = [change(str(one)) for one in _listed(value)]
    return values[0] if len(values) == 1 else values


def _age_up_to_90(age: str) -> str:
    """Ages over 89 become 90 (45 CFR 164.514(b)(2)(i)(C) lets "90 or older" stand)."""
    return "090Y" if age[:3].isdigit() and age.endswith("Y") and int(age[:3]) > 89 else age


def _state(dataset: Dataset, options: Options) -> None:
    """Say in the data set what was done (PS3.15 E.1.1, PS3.3 C.12.1.1.3 and C.7.1.1)."""
    used = ["profile", *sorted(options.keep)]
    used += ["pixels"] if options.boxes or options.clean_pixels != "no" else []
    used += ["private"] if options.private else []
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = METHOD
    dataset.LongitudinalTemporalInformationModified = "MODIFIED" if "dates" in options.keep else "REMOVED"
    codes = []
    for name in used:
        code = Dataset()
        code.CodeValue, code.CodeMeaning = CODES[name]
        code.CodingSchemeDesignator = "DCM"
        codes.append(code)
    dataset.DeidentificationMethodCodeSequence = Sequence(codes)


def _write_meta(dataset: Dataset) -> None:
    """File meta information made anew: the old one may name machines and hold private information."""
    old = dataset.file_meta
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = old.TransferSyntaxUID
    storage = dataset.get("SOPClassUID") or old.get("MediaStorageSOPClassUID")
    if storage:
        meta.MediaStorageSOPClassUID = storage
    if dataset.get("SOPInstanceUID"):
        meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta = meta
    dataset.preamble = b"\0" * 128  # type: ignore[attr-defined]
