"""What the rule labeller tells apart: kinds of findings, and sides."""

from __future__ import annotations

import re

from medvlm.eval.scorers.finding_terms import BESIDE, DENIALS, DOUBTFUL, IGNORED, NAMES, Term

TERMS: tuple[Term, ...] = (*IGNORED, *DOUBTFUL, *NAMES, *DENIALS)
"""In the order in which they claim words."""

KINDS: tuple[str, ...] = tuple(dict.fromkeys(term.kind for term in (*NAMES, *BESIDE) if term.kind is not None))

WITHOUT_SIDE = frozenset(
    {"cardiomegaly", "pericardial effusion", "reduced motion", "edema", "widened mediastinum", "vascular congestion"}
)
"""Findings of the whole heart or of both lungs: their side is never compared."""

_SYNONYMS = {
    "effusion": "pleural effusion",
    "oedema": "edema",
    "pulmonary edema": "edema",
    "ground glass opacity": "ground-glass opacity",
    "enlarged heart": "cardiomegaly",
    "lung nodule": "nodule",
    "lung mass": "mass",
    "hypokinesis": "reduced motion",
    "enlarged cardiomediastinum": "widened mediastinum",
    "lung opacity": "opacity",
    "lung lesion": "nodule",
    "pleural other": "pleural thickening",
    "support devices": "support device",
    "infiltrate": "opacity",
}

FINDING_OF_KIND: dict[str, str] = {}
for _one in (*NAMES, *BESIDE):
    if _one.kind is not None and _one.finding is not None:
        FINDING_OF_KIND[_one.kind] = _one.finding
"""kind -> finding of CheXpert; of "consolidation" the one of that name, which stands last."""


def kind_named(name: str) -> str | None:
    """The kind that a manifest calls ``name`` ("pleural_effusion", "Pleural effusion"), or None when unknown."""
    plain = " ".join(re.split(r"[\s_]+", name.strip().lower()))
    plain = _SYNONYMS.get(plain, plain)
    return plain if plain in KINDS else None


SIDES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (side, re.compile(rf"(?<!\w)(?:{pattern})(?!\w)"))
    for side, pattern in (
        (
            "bilateral",
            r"bilateral(?:ly)?|bibasilar|bibasal|biapical|both (?:lungs?|sides|lung bases|bases|hemithoraces)",
        ),
        ("bilateral", r"(?:left|right) (?:and|(?:is )?(?:greater|more|larger) than|>) (?:the )?(?:right|left)"),
        ("left", r"left(?:[- ]sided)?|lul|lll|lingula\w*"),
        ("right", r"right(?:[- ]sided)?|rul|rml|rll"),
    )
)
"""(side, pattern); earlier patterns take their words from later ones."""

NOT_A_SIDE = re.compile(r"(?:left|right) (?:ventric\w+|atri\w+|heart)")
