"""What a question belongs to besides its kind: the groups in which a model may do worse."""

from __future__ import annotations

from collections.abc import Mapping

from medvlm.eval.plan import Item

STRATA: Mapping[str, tuple[str, ...]] = {
    "modality": ("modality",),
    "body_part": ("body_part", "organ", "region", "location"),
    "sex": ("sex",),
    "age_band": ("age_band",),
    "view": ("view",),
    "site": ("site",),
    "language": ("language",),
    "shortcut": ("shortcut",),
    "probe": ("probe",),
    "subject": ("subject",),
    "difficulty": ("difficulty",),
    "question_type": ("question_type",),
}
"""Stratum -> the keys of ``Sample.metadata`` that may say it, the first that does counts."""


def strata_of(item: Item) -> dict[str, str]:
    """Stratum -> group of one sample; what its metadata does not say is left out."""
    found: dict[str, str] = {}
    for stratum, keys in STRATA.items():
        for key in keys:
            value = item.sample.metadata.get(key)
            if isinstance(value, str | int | float) and str(value).strip().lower() not in ("", "unknown"):
                found[stratum] = str(value)
                break
    return found
