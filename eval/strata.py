"""What a question belongs to besides its kind: the groups in which a model may do worse."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from medvlm.eval.plan import Item

UNKNOWN = frozenset({"", "unknown", "none", "nan", "other", "n/a", "na"})

AGE_BANDS = ((18, "0-17"), (40, "18-39"), (60, "40-59"), (80, "60-79"))
"""Years below which a band ends; from 80 on there is one."""

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([ywmd]?)(?:ears?|r|rs|o|eeks?|onths?|ays?|ear[- ]?old)?", re.IGNORECASE)
_YEARS = {"y": 1.0, "": 1.0, "m": 1 / 12, "w": 1 / 52, "d": 1 / 365}
_SEXES = {"m": "male", "male": "male", "man": "male", "f": "female", "female": "female", "woman": "female"}


def age_band(age: str) -> str | None:
    """The band of an age as tables write it: "45", "63.0", DICOM's "045Y" and "006M"; None when it is no age."""
    match = _AGE.fullmatch(age.strip())
    if match is None:
        return None
    years = float(match[1]) * _YEARS[match[2].lower()]
    return next((name for below, name in AGE_BANDS if years < below), "80 and over") if years < 130 else None


def _sex(value: str) -> str | None:
    return _SEXES.get(value.strip().lower())


def _said(value: str) -> str | None:
    return value.strip()


_READ: Mapping[str, Callable[[str], str | None]] = {"sex": _sex, "gender": _sex, "age": age_band}
"""How the values of a key are read; those of others stand as they are."""

STRATA: Mapping[str, tuple[str, ...]] = {
    "modality": ("modality",),
    "body_part": ("body_part", "organ", "region", "location"),
    "sex": ("sex", "gender"),
    "age_band": ("age_band", "age"),
    "view": ("view", "views", "plane"),
    "site": ("site", "institution", "hospital", "collection"),
    "scanner": ("scanner", "manufacturer"),
    "language": ("language",),
    "race": ("race",),
    "subject": ("subject", "subject_name", "medical_task"),
    "difficulty": ("difficulty",),
    "shortcut": ("shortcut",),
    "speaks_of_prior": ("speaks_of_prior",),
}
"""Stratum -> the keys of ``Sample.metadata`` that may say it, as recipes and tasks write them; the first that says
anything counts. "shortcut": whether the visual shows what a model may answer from instead of the finding (a drain, a
marker, a ruler), true or false."""

_OF_KEY = {key: (stratum, rank) for stratum, keys in STRATA.items() for rank, key in enumerate(keys)}


def strata_of(item: Item) -> dict[str, str]:
    """Stratum -> group of one sample; what its metadata does not say is left out.

    "source" is the data set that it comes from. True and false read "present" and "absent"; lists of views, joined.
    """
    best: dict[str, tuple[int, str]] = {}
    for key, value in item.sample.metadata.items():
        stratum, rank = _OF_KEY.get(key, ("", 0))
        if not stratum or (stratum in best and best[stratum][0] <= rank):
            continue
        group = _group(key, value)
        if group is not None:
            best[stratum] = (rank, group)
    return {"source": item.sample.source} | {stratum: best[stratum][1] for stratum in STRATA if stratum in best}


def _group(key: str, value: object) -> str | None:
    if isinstance(value, bool):
        return "present" if value else "absent"
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = " and ".join(sorted({one.strip() for one in value}))
    if not isinstance(value, str | int | float):
        return None
    text = str(value).strip()
    if text.lower() in UNKNOWN:
        return None
    return _READ.get(key, _said)(text)
