"""Identifiers of patients in DICOM tags and pixels, by the rules of medvlm.data_recipes.deidentification."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from medvlm.data_recipes.checks.finding import Severity
from medvlm.data_recipes.deidentification.pixels import burned_in_text
from medvlm.data_recipes.deidentification.tags import identifying_tags
from medvlm.data_recipes.readers.content import format_of
from medvlm.model.visual import Visual

DIRECT_TAGS = ("PatientName", "PatientID", "PatientBirthDate", "PatientBirthName", "PatientMotherBirthName",
               "OtherPatientIDs", "OtherPatientNames", "PatientAddress", "PatientTelephoneNumbers",
               "MilitaryRank", "EthnicGroup", "IssuerOfPatientID")  # fmt: skip
"""Attributes that name the patient: errors. Others (dates, institution, physicians, accession number) are warnings,
because many released data sets keep them on purpose, shifted or replaced."""

MANY_WORDS = 4
"""Words in the pixels, none of which looks like an identifier, from which a look is asked for: side marks and
"PORTABLE" stand in most radiographs."""

MEND = "run medvlm data deidentify on the files or texts, or leave the row out"


@dataclass(frozen=True, kw_only=True)
class Private:
    """What is looked for in the files: identifying DICOM tags; text in pixels, by OCR, which takes seconds a visual."""

    tags: bool = True
    pixels: bool = False


def private_tags(path: Path) -> tuple[str, ...]:
    """Names of the identifying attributes of a DICOM file, or of all DICOM files of a folder; () of other files.

    Raises:
        BadSample: a header cannot be parsed.
    """
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    found: set[str] = set()
    for file in files:
        if format_of(file) == "dicom":
            found.update(identifying_tags(file))
    return tuple(sorted(found))


def private_text(visual: Visual) -> tuple[str, ...]:
    """Kinds of identifiers that OCR reads in the pixels, and "word" once for each other word.

    Raises:
        RuntimeError: there is no OCR.
    """
    kinds: list[str] = []
    for box in burned_in_text(visual):
        kinds += sorted(set(box.kinds)) or ["word"]
    return tuple(kinds)


def judged_tags(tags: tuple[str, ...]) -> tuple[Severity, str]:
    """How grave identifying attributes are, and their names."""
    direct = [tag for tag in tags if tag.rsplit("/", 1)[-1] in DIRECT_TAGS]
    told = [*direct, *(tag for tag in tags if tag not in direct)]
    names = ", ".join(told[:8]) + (f" and {len(told) - 8} more" if len(told) > 8 else "")
    return ("error" if direct else "warning"), f"DICOM attributes that identify: {names}"


def judged_pixels(burned: tuple[str, ...]) -> tuple[Severity, str] | None:
    """How grave burned-in text is, and what was read; None for a few words such as side marks."""
    kinds = Counter(burned)
    words = kinds.pop("word", 0)
    if kinds:
        told = ", ".join(f"{count} x {kind.replace('_', ' ')}" for kind, count in sorted(kinds.items()))
        return "error", f"text in the pixels that may identify: {told}"
    return ("warning", f"{words} words in the pixels") if words >= MANY_WORDS else None
