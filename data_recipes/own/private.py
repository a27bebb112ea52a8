"""Which values of a column may be shown to help a person recognise it: never those that may identify a patient."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from medvlm.data_recipes.deidentification.text import find_identifiers

_NAMES = re.compile(
    r"(^|[^a-z])(id|ids|uid|name|mrn|patient|patientid|subject|case|birth|born|dob|accession|ssn|phone|fax|email|mail|"
    r"address|street|zip|city|location|date|time|day|age|physician|doctor|radiologist|author|hospital|url|link|doi|"
    r"reader|operator|staff|technician|performed|referring|signed|user|who|credit|courtesy|annotator)"
    r"($|[^a-z])"
)
_STEMS = (
    "patient", "accession", "birth", "mrn", "name", "nombre", "paciente", "pazient", "apellido", "cognome", "sobrenome",
    "prenom", "prénom", "geburt", "geboren", "naissance", "nacimiento", "nascita", "nascimento", "adress", "address",
    "direcci", "indirizzo", "endereço", "strasse", "straße", "telefon", "teléfono", "datum", "fecha", "nummer",
    "numero", "número", "numéro", "arzt", "ärzt", "aerzt", "medic", "médic", "médec", "medec", "befunder", "radiolog",
    "untersucher", "einsender", "zuweiser", "überweiser", "hospital", "krankenhaus", "klinik", "clinic", "wohnort",
)  # fmt: skip
"""Pieces of column names in English, German, French, Spanish, Italian and Portuguese, which compound words."""
_LABELS = re.compile(
    r"label|class|diagnos|finding|findung|categor|target|answer|antwort|respuesta|respost|rispost|r[eé]pons|choice|"
    r"option|question|frage|pregunt|pergunt|domand|modali|body.?part|projection|laterality|severity|topic|split",
    re.IGNORECASE,
)
_PLAIN = frozenset(
    (
        "true", "false", "none", "null", "unknown", "normal", "abnormal", "positive", "negative", "present", "absent",
        "train", "test", "validation", "male", "female", "left", "right", "both", "frontal", "lateral", "nein",
    )
)  # fmt: skip
"""Words of four letters or more that name nobody, whatever the column."""
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_UID = re.compile(r"^[\d.:/ -]{8,}$")
_TITLED = re.compile(r"^(?:[^\W\d_][\w.'’-]*[\s,]+)+[^\W\d_][\w.'’-]*$")
LONGEST = 60
PROSE = 40
"""Mean characters from which on values are prose, in which names may stand that no rule finds."""
OFTEN = 2
"""A value must stand in so many of the rows: what is written once may be written about one person."""


def named_like_an_identifier(column: str) -> bool:
    """Whether the words of the name ("PatientID", "study_date", "acc. no") say that values may identify somebody."""
    words = _CAMEL.sub(" ", column).lower()
    return bool(_NAMES.search(words)) or any(stem in words for stem in _STEMS)


def examples(column: str, values: Iterable[Any], count: int = 3) -> list[str] | None:
    """At most ``count`` different short values of a column; None when none may be shown.

    Shown are questions, and short values that several rows share. Not shown are columns that are named like an
    identifier, codes that differ in every row, prose, what looks like a person's name, and values in which
    ``find_identifiers`` finds something. Words such as "Weber" are shown of columns only that are
    named like a label.
    """
    texts = [" ".join(str(value).split()) for value in values if isinstance(value, str | int | float)]
    texts = [text for text in texts if text]
    if named_like_an_identifier(column) or _are_codes(texts) or _is_prose(texts):
        return None
    often = Counter(texts)
    if not _LABELS.search(column) and not all(map(_names_nobody, often)):
        return None
    shown = [
        text
        for text, times in often.items()
        if (times >= OFTEN or text.endswith("?")) and len(text) <= LONGEST and _harmless(text)
    ]
    return shown[:count] or None


def _are_codes(texts: Sequence[str]) -> bool:
    """One word with a digit, different in almost every row: a name of a file, a study, a person."""
    words = [text for text in texts if " " not in text and any(letter.isdigit() for letter in text)]
    return len(texts) > 3 and len(words) > 0.8 * len(texts) and len(set(texts)) > 0.8 * len(texts)


def _is_prose(texts: Sequence[str]) -> bool:
    asked = sum(text.endswith("?") for text in texts)
    return bool(texts) and sum(map(len, texts)) > PROSE * len(texts) and asked < 0.5 * len(texts)


def _harmless(text: str) -> bool:
    if _UID.match(text) or any(mark in text for mark in ("^", "/", "\\", "@")):
        return False
    # "Jane Doe" is no different from "Pleural Effusion" to a rule: neither is shown.
    if _TITLED.match(text) and all(word[0].isupper() for word in re.split(r"[\s,]+", text)):
        return False
    return not find_identifiers(text)


def _names_nobody(text: str) -> bool:
    """A question, a number, an abbreviation ("PA") or one of ``_PLAIN``; asked of all, so that "Weber" hides "Li"."""
    words = re.findall(r"[^\W\d_]{4,}", text)
    return text.endswith("?") or all(word.lower() in _PLAIN for word in words)
