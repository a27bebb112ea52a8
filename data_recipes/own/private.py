"""Which values of a column may be shown to help a person recognise it: never those that may identify a patient."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from medvlm.data_recipes.deidentification.text import find_identifiers

_NAMES = re.compile(
    r"(^|[^a-z])(id|ids|uid|name|mrn|patient|patientid|subject|case|birth|born|dob|accession|ssn|phone|fax|email|mail|"
    r"address|street|zip|city|location|date|time|day|age|physician|doctor|radiologist|author|hospital|url|link|doi)"
    r"($|[^a-z])"
)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_UID = re.compile(r"^[\d.:/ -]{8,}$")
LONGEST = 60


def named_like_an_identifier(column: str) -> bool:
    """Whether the words of the name ("PatientID", "study_date", "acc. no") say that values may identify somebody."""
    words = _CAMEL.sub(" ", column).lower()
    return bool(_NAMES.search(words)) or any(part in words for part in ("patient", "accession", "birth", "mrn"))


def examples(column: str, values: Iterable[Any], count: int = 3) -> list[str] | None:
    """At most ``count`` different short values of a column; None when none may be shown.

    Not shown are columns that are named like an identifier, columns of codes that are different in every row, and
    values with a path, a person's name, a date, a number of a record, or whatever else ``find_identifiers`` finds.
    """
    texts = [str(value).strip() for value in values if isinstance(value, str | int | float)]
    texts = [text for text in texts if text]
    if named_like_an_identifier(column) or _are_codes(texts):
        return None
    shown: list[str] = []
    for text in texts:
        short = " ".join(text.split())
        if short in shown or not _harmless(text):
            continue
        shown.append(short)
        if len(shown) == count:
            break
    return [text if len(text) <= LONGEST else text[:LONGEST] + " ..." for text in shown] or None


def _are_codes(texts: Sequence[str]) -> bool:
    """One word with a digit, different in almost every row: a name of a file, a study, a person."""
    words = [text for text in texts if " " not in text and any(letter.isdigit() for letter in text)]
    return len(texts) > 3 and len(words) > 0.8 * len(texts) and len(set(texts)) > 0.8 * len(texts)


def _harmless(text: str) -> bool:
    if _UID.match(text) or any(mark in text for mark in ("^", "/", "\\", "@")):
        return False
    return not find_identifiers(text)
