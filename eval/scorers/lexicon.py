"""The words in which radiologists name findings and sides: data of the rule labeller in labeller.py."""

from __future__ import annotations

import re

_HEART = r"(?:heart(?: size)?|cardiac silhouette|cardiac size|cardiac shadow|heart shadow|cardiomediastinal silhouette)"
_MOTION = r"(?:(?:wall|ventricular|cardiac|heart|myocardial|systolic|left|right)[ -])*(?:motion|contractility)"
_REDUCED = r"(?:reduced|decreased|impaired|diminished|poor)"

PRESENT: tuple[tuple[str, str], ...] = (
    ("cardiomegaly", rf"cardiomegaly|cardiac enlargement|{_HEART}(?: [\w-]+){{0,5}} enlarged"),
    ("cardiomegaly", rf"{_HEART}(?: (?:is|appears|remains|not|no longer|[a-z]+ly)){{1,3}} (?:increased|large)"),
    ("cardiomegaly", rf"(?:enlarged|large) {_HEART}|enlargement of the {_HEART}"),
    ("reduced motion", rf"{_REDUCED} {_MOTION}|{_MOTION}(?: (?:is|are|was|appears|not|[a-z]+ly)){{1,3}} {_REDUCED}"),
    ("reduced motion", r"(?:hypo|a)kine(?:sis|sia|tic)"),
    ("ground-glass opacity", r"ground[- ]glass(?: (?:opacit\w+|opacification|attenuation|densit\w+|changes?))?|ggos?"),
    ("nodule", r"nodules?|nodular (?:densit\w+|opacit\w+|lesions?)"),
    ("consolidation", r"consolidations?|consolidative (?:opacit\w+|changes?)|airspace (?:disease|consolidations?)"),
    ("mass", r"mass(?:es)?(?! effect)"),
    ("pericardial effusion", r"pericardial (?:effusions?|fluid)|ha?emopericardium"),
    ("pleural effusion", r"pleural (?:effusions?|fluid)|hydrothora(?:x|ces)|effusions?"),
    ("pneumothorax", r"pneumothora(?:x|ces)|hydropneumothorax|ptx"),
    ("atelectasis", r"atelecta\w+"),
    ("edema", r"o?edema"),
    ("opacity", r"opacit(?:y|ies)|opacification|infiltrates?"),
    ("fracture", r"fractures?|fractured"),
)
"""(kind, pattern) that asserts a finding unless negated; earlier patterns take their words from later ones."""

ABSENT: tuple[tuple[str, str], ...] = (
    ("cardiomegaly", rf"normal(?:[ -]sized)? {_HEART}"),
    ("cardiomegaly", rf"{_HEART}(?:(?!lung)[^.;]){{0,60}}?\b(?:normal|unremarkable)(?! variant)"),
    ("reduced motion", rf"(?:normal|preserved) {_MOTION}"),
    ("reduced motion", rf"{_MOTION}(?: (?:is|are|was|appears|within|[a-z]+ly)){{1,3}} (?:normal|preserved)"),
)
"""(kind, pattern) that says in positive words that a finding is not there."""

DOUBTFUL: tuple[tuple[str, str], ...] = (
    (
        "cardiomegaly",
        rf"{_HEART}(?: [\w-]+){{0,5}} (?:borderline|upper limits? of normal|top normal)(?: [\w-]*enlarged)?",
    ),
    ("cardiomegaly", rf"borderline (?:cardiomegaly|(?:enlarged )?{_HEART}|enlargement of the {_HEART})"),
)
"""(kind, pattern) that leaves a finding open; tried first."""

KINDS: tuple[str, ...] = tuple(dict.fromkeys(kind for kind, _ in PRESENT))

WITHOUT_SIDE = frozenset({"cardiomegaly", "pericardial effusion", "reduced motion", "edema"})
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
}


def kind_named(name: str) -> str | None:
    """The kind that a manifest calls ``name`` ("pleural_effusion", "Pleural effusion"), or None when unknown."""
    plain = " ".join(re.split(r"[\s_]+", name.strip().lower()))
    plain = _SYNONYMS.get(plain, plain)
    return plain if plain in KINDS else None


SIDES: tuple[tuple[str, str], ...] = (
    ("bilateral", r"bilateral(?:ly)?|bibasilar|bibasal|biapical|both (?:lungs?|sides|lung bases|bases|hemithoraces)"),
    ("bilateral", r"(?:left|right) (?:and|(?:is )?(?:greater|more|larger) than|>) (?:the )?(?:right|left)"),
    ("left", r"left(?:[- ]sided)?|lul|lll|lingula\w*"),
    ("right", r"right(?:[- ]sided)?|rul|rml|rll"),
)
"""(side, pattern); earlier patterns take their words from later ones."""

NOT_A_SIDE = r"(?:left|right) (?:ventric\w+|atri\w+)"

NEGATION = (
    r"(?:no(?! longer)(?! (?:other|additional|further))|without|absence of|negative for|free of|clear of|"
    r"not(?! only)|nor|neither|lack of|lacks|resolution of)"
    r"(?!(?: \w+)? (?:change|increase|decrease|progression|improvement))"
)
"""Before a finding: denies it, unless what is denied is a change of it."""

OTHER = r"no (?:other|additional|further)"
"""Before a finding: says nothing about the one already named."""

NEGATION_AFTER = (
    r"(?:not|no longer) (?:\w+ly )?(?:seen|identified|present|visuali[sz]ed|evident|demonstrated|detected|appreciated|"
    r"visible|observed|found)|absent|resolved|ruled out|excluded"
)
"""After a finding: "... is not seen", "... has resolved"."""

DOUBT = (
    r"possibl[ey]|probabl[ey]|may|might|could|suspicious for|suspected|suspicion (?:of|for)|questionable|question of|"
    r"likely|concerning for|concern for|equivocal|borderline|versus|vs|rule out|evaluate for|"
    r"cannot (?:be )?(?:\w+ )?excluded?|cannot rule out|not (?:\w+ )?excluded"
)

SCOPE_END = r"but|however|although|though|except|apart from|aside from|other than|there (?:is|are)|yet|while|whereas"
"""Words that end the reach of a negation."""

ASSERTS_ANEW = (
    r"(?:,|\band\b) (?:an?|the|there|small|moderate|large|mild|severe|trace|tiny|minimal|stable|persistent|new|"
    r"unchanged|increased|left|right|bilateral|\d+)\b"
)
"""After a negated finding: "No pneumothorax, small left effusion" asserts again, unless an "or" still follows."""
