"""Names of files and folders without what they say of a patient: keyed pseudonyms, part by part."""

from __future__ import annotations

import re
from pathlib import PurePath

from medvlm.data_recipes.deidentification.keyed import Key

_ENDINGS = (
    ".dcm",
    ".dicom",
    ".ima",
    ".txt",
    ".text",
    ".jsonl",
    ".csv",
    ".tsv",
    ".nii.gz",
    ".nii",
    ".png",
    ".jpg",
    ".jpeg",
)
_PLAIN = """
train test validation val dev questions question reports report images image volumes volume videos video dicom series
slices text texts manifest manifests pairs preferences findings labels metadata data ct mr us cr dx mg pt xr cxr left
right frontal lateral ap pa axial coronal sagittal chest head abdomen brain knee files table tables
"""
_WORDS = frozenset(_PLAIN.split())


def clean_name(name: str, key: Key) -> str:
    """A name made of plain words of the field stays ("train.jsonl"); anything else becomes 16 digits of a keyed hash.

    The ending stays when it is a usual one; any other is part of what is hashed.
    """
    ending = next((end for end in _ENDINGS if name.lower().endswith(end)), "")
    stem = name[: len(name) - len(ending)]
    words = [word for word in re.split(r"[-_. ]+", stem.lower()) if word]
    if words and all(word in _WORDS for word in words):
        return stem + ending
    return key.pseudonym(name, "file").removeprefix("medvlm-") + ending


def clean_path(path: str, key: Key, *, keep: bool) -> str:
    """A relative path, cleaned part by part, so that what lay together does so still; all of it stays with ``keep``."""
    if keep:
        return PurePath(path).as_posix()
    return "/".join(part if part in (".", "..") else clean_name(part, key) for part in PurePath(path).parts)
