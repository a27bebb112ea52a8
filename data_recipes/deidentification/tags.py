"""Which DICOM attributes of a file hold values that identify a person: their names, never their values.

What may identify is Table E.1-1 of PS3.15 (medvlm.data_recipes.deidentification.basic_profile); whether a value does is
told by rules: empty values and the usual placeholders do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from medvlm.data_recipes.deidentification.basic_profile import KEPT, action_of
from medvlm.data_recipes.deidentification.text import find_identifiers
from medvlm.data_recipes.readers.dicom_header import DICOM_ERRORS, open_dataset, quiet
from medvlm.data_recipes.readers.refusals import decoding

PLACEHOLDER = re.compile(
    r"(?i)(?:|anon\w*|de-?identified|removed|redacted|none|n/?a|null|nil|unknown|unnamed|no ?name|patient|phantom|"
    r"pseudonym\w*|xx+|_+|0+|0*[ymwd]|0+\.0+|\(0000,0000\)|0{2,}[:.0]*(?:\+0000)?|0001010?1[0-9.+]*|1[89]000101[0.+]*|medvlm-[0-9a-f]+|"
    r"https?://anonymi[sz]ed\.invalid|-+|\?+|\.+)"
)
METHOD_CODES = {
    "113105": "descriptors", "113106": "dates", "113107": "dates", "113108": "patient_characteristics",
    "113109": "device", "113110": "uids", "113112": "institution",
}  # fmt: skip
"""Codes of DeidentificationMethodCodeSequence (PS3.16 CID 7050) -> what such a file keeps on purpose."""

_META = ("SourceApplicationEntityTitle", "SendingApplicationEntityTitle", "ReceivingApplicationEntityTitle",
         "SourcePresentationAddress", "PrivateInformation")  # fmt: skip
"""Of the file meta information; Table E.1-1 does not list it, it is written anew."""
_UNSTRICT_VRS = ("UI", "TM")
_PSEUDONYMS = ("PatientID", "PatientName", "ClinicalTrialSubjectID")


def identifying_tags(path: Path, *, strict: bool = False) -> tuple[str, ...]:
    """Keywords of the attributes of one DICOM file that hold identifying values, sorted.

    Attributes inside sequences are named with their path ("RequestAttributesSequence/RequestingService"), private
    ones by their tag ("(0009,1001)"). Where the file says that its PatientIdentityRemoved is YES, a pseudonym in
    PatientID or PatientName is believed to be one, and so is what its DeidentificationMethodCodeSequence says was
    kept or shifted on purpose.

    Args:
        path: the file.
        strict: count every non-empty attribute of the table. Otherwise UIDs, times of day, patient characteristics
            (age up to 89, sex, size, weight) do not count, and descriptions, comments and private values only when
            they hold a name, date, number or address that find_identifiers sees.

    Raises:
        BadSample: the file is no readable DICOM file. The message holds no value.
    """
    return identifying_attributes(open_dataset(path, pixels=False), where=path, strict=strict)


def identifying_attributes(dataset: Dataset, *, where: Path, strict: bool = False) -> tuple[str, ...]:
    """The same for an open data set; ``where`` is named when an attribute cannot be parsed.

    Raises:
        BadSample: a damaged attribute.
    """
    mend = "export the file again, or leave it out"
    with decoding(where, "DICOM attributes", mend, also=DICOM_ERRORS, quote=False), quiet():
        for _ in dataset.iterall():
            pass  # decodes each attribute, so that a damaged one shows here and not within our own rules
    with quiet():
        removed = str(dataset.get("PatientIdentityRemoved", "")).upper() == "YES"
        kept = _kept_on_purpose(dataset) if removed else frozenset()
        found = set(_walk(dataset, "", kept, removed, strict))
        for element in getattr(dataset, "file_meta", Dataset()):
            if strict and element.keyword in _META and not is_placeholder(element):
                found.add(element.keyword)
    return tuple(sorted(found))


def _kept_on_purpose(dataset: Dataset) -> frozenset[str]:
    codes = (str(item.get("CodeValue", "")) for item in dataset.get("DeidentificationMethodCodeSequence") or ())
    return frozenset(METHOD_CODES[code] for code in codes if code in METHOD_CODES)


def _walk(dataset: Dataset, inside: str, kept: frozenset[str], removed: bool, strict: bool) -> Iterator[str]:
    for element in dataset:
        name = inside + name_of(element)
        if element.tag.is_private:
            if not element.tag.is_private_creator and _private_identifies(element, strict):
                yield name
            continue
        action = action_of(element.tag)
        if element.VR == "SQ":
            if action and strict and element.value and action != "X/Z/U*" and not _kept(element, kept):
                yield name
            for item in element.value or ():
                yield from _walk(item, name + "/", kept, removed, strict)
        elif element.VR == "PN" or action is not None:
            if _kept(element, kept) or is_placeholder(element):
                continue
            if removed and (_is_pseudonym(element) or (element.VR == "UI" and _is_derived(element))):
                continue
            if strict or _identifies(element):
                yield name


def name_of(element: DataElement) -> str:
    """Keyword, or the tag as "(gggg,eeee)" of what has none."""
    return keyword_for_tag(element.tag) or f"({element.tag.group:04x},{element.tag.element:04x})"


def _kept(element: DataElement, kept: frozenset[str]) -> bool:
    """Whether the file states that this kind of attribute was kept; cleaned texts are looked into all the same."""
    for option, tags in KEPT.items():
        if option in kept and element.tag in tags:
            return option != "descriptors" or not find_identifiers(_text_of(element))
    return False


def _identifies(element: DataElement) -> bool:
    if element.keyword == "TimezoneOffsetFromUTC":
        return False
    if element.VR in _UNSTRICT_VRS or element.VR in ("OB", "OW", "UN", "OF", "OD", "OL"):
        return element.keyword in ("EncapsulatedDocument", "PrivateInformation")
    if element.VR == "AS":
        return bool(re.match(r"(?:09\d|1\d\d)Y", str(element.value)))
    if element.tag in KEPT["patient_characteristics"]:
        return False
    if element.tag in KEPT["descriptors"] and element.VR != "PN":
        return bool(find_identifiers(_text_of(element)))
    # "1" in StudyID says nothing.
    return not isinstance(element.value, int | float) and len(_text_of(element).strip()) > 2


def _private_identifies(element: DataElement, strict: bool) -> bool:
    if strict:
        return True
    if element.VR == "SQ":
        return any(True for item in element.value or () for _ in _walk(item, "", frozenset(), False, strict))
    if is_placeholder(element):
        return False
    if element.VR in ("PN", "DA", "DT"):
        return True
    return bool(find_identifiers(_text_of(element)))


def _text_of(element: DataElement) -> str:
    value: Any = element.value
    if value is None or isinstance(value, pydicom.Sequence):
        return ""
    if isinstance(value, bytes):
        printable = value.rstrip(b"\0 ")
        return printable.decode("latin-1") if len(printable) < 4096 and printable.isascii() else ""
    if isinstance(value, pydicom.multival.MultiValue | list):
        return "\n".join(str(one) for one in value)
    return str(value)


def is_placeholder(element: DataElement) -> bool:
    """Whether the value is empty or what de-identification writes in the place of one."""
    text = _text_of(element)
    if isinstance(element.value, bytes) and not text:
        return not element.value.strip(b"\0 ")
    return all(PLACEHOLDER.fullmatch(part.strip(" \0^=")) is not None for part in re.split(r"[\n^=]", text))


def _is_pseudonym(element: DataElement) -> bool:
    """An id or a code; a name of letters alone ("DOE^JANE") is none, whatever the file says."""
    if element.keyword not in _PSEUDONYMS:
        return False
    return element.keyword != "PatientName" or any(letter.isdigit() for letter in str(element.value))


def _is_derived(element: DataElement) -> bool:
    """UIDs under the root of UUIDs, as de-identification writes them, and those that the standard registers."""
    return all(uid.startswith(("2.25.", "1.2.840.10008.")) for uid in _text_of(element).split("\n"))
