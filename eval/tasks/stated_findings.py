"""What a report plainly says about a finding: there, not there, or too little to ask about. Frozen rules for probes.

The labeller that marks answers (eval.scorers.labeller) may improve at any time; the questions of a task may not change
with it. These rules therefore stand apart, are few, and prefer saying nothing to saying something wrong: a finding is
used only where every sentence that names it says the same, without doubt, history or qualification. They follow NegEx
(Chapman et al. 2001) in looking only as far as a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

FINDINGS: Mapping[str, str] = {
    "pleural effusion": r"(?<!pericardial )(?:effusions?|hydrothorax|pleural fluid)",
    "pneumothorax": r"(?:hydro)?pneumothora(?:x|ces)",
    "consolidation": r"consolidations?",
    "pulmonary edema": r"(?<!pedal )(?<!peripheral )(?:pulmonary |interstitial |alveolar )?o?edema",
    "atelectasis": r"atelecta(?:sis|tic)",
    "pneumonia": r"pneumonia",
    "nodule": r"nodules?|nodular (?:densit\w+|opacit\w+|lesions?)",
    "mass": r"mass(?:es)?",
    "granuloma": r"granulomas?",
    "opacity": r"opacit(?:y|ies)",
    "scarring": r"scarring|scars?",
    "rib fracture": r"rib fractures?|fractured ribs?|fracture of the \w+ rib",
    "cardiomegaly": (
        r"cardiomegaly|enlarged (?:heart|cardiac silhouette|cardiac contour)|"
        r"(?:heart|cardiac silhouette|cardiac contour)(?: size)?"
        r"(?: (?:is|remains|appears|mildly|moderately|markedly|severely|again|stably))* enlarged"
    ),
}
"""Finding -> how a sentence names it, in lower case."""

_PATTERNS = {name: re.compile(rf"(?<![\w-])(?:{pattern})(?!\w)") for name, pattern in FINDINGS.items()}

WITHOUT_SIDE = frozenset({"pulmonary edema", "cardiomegaly"})
"""Never asked for a side: of the whole heart, or of both lungs."""

_DENIES = re.compile(r"\b(?:no|without|negative for|free of|clear of|absence of)\b(?! longer)")
_OTHER_NEGATION = re.compile(
    r"\b(?:not|nor|neither|cannot|can't|no longer|resol\w+|clear(?:ed|ing)|excluded?|removal|absent|rather than)\b"
)
_DOUBT = re.compile(
    r"\b(?:possibl[ey]|probabl[ey]|may|might|could|suspicio\w+|suspect\w*|question\w*|likely|concern\w*|equivocal|"
    r"borderline|versus|vs|rule out|evaluat\w*|assess\w*|limit\w*|suggest\w*|consider\w*|if|differential|"
    r"consistent with|compatible|represent\w*|correlat\w*|vague|presum\w+|mimic\w*|artifact\w*|worrisome|"
    r"possibility|potential\w*|reflect\w*|doubt\w*|unless|detect\w*|sensitiv\w+|drained)\b|/"
)
_PAST = re.compile(r"\b(?:history|previous(?:ly)?|prior|status post|s/p|known|comparison|removed|interval|ct|mri?)\b")
"""Of another time or another picture."""
_NOT_THE_FINDING = re.compile(r"\b(?:but|however|although|except|other than|apart from|aside from|chang\w+|increas\w+|"
                              r"decreas\w+|worsen\w+|improv\w+|is|are|was|were|has|have|with)\b")  # fmt: skip
_QUALIFIED = re.compile(
    r"\b(?:large|larger|sizable|sizeable|significant|gross|overt|frank|definite|obvious|convincing|acute|displaced|new|"
    r"residual|recurrent|further|other|additional|suspicious|dominant|tension|substantial|appreciable|confluent|lobar|"
    r"visible|depressed|bony|discrete|left|right|bilateral|upper|lower|middle|apical|basilar|layering|rib|growing)\b"
)
"""Before a denied finding: only that kind of it is denied, so that nothing follows for the finding itself."""
_NORMAL_HEART = re.compile(
    r"^(?:the )?(?:heart|heart size|cardiac silhouette|heart and mediastinum|cardiomediastinal silhouette|"
    r"cardiac and mediastinal silhouettes?|cardiac size)"
    r"(?:,? (?:and|mediastinum|mediastinal|silhouette|contours?|pulmonary|vascularity|size))*"
    r" (?:is|are|appears?)? ?(?:within )?(?:the )?(?:limits of )?(?:normal(?: limits)?|unremarkable)"
    r"(?: (?:in size|in size and contour|limits|for size))?$|"
    r"^normal (?:heart size|cardiac silhouette|cardiomediastinal silhouette)$"
)
_HEART_IN_DOUBT = re.compile(
    r"\b(?:heart|cardi\w+)\b.*"
    r"\b(?:top normal|upper limits?|borderline|enlarge\w*|prominen\w+|large|increased|not|mildly)\b|"
    r"\b(?:top normal|upper normal|borderline|enlarge\w*|prominent|large)\b.*\b(?:heart|cardi\w+)\b"
)
"""Says something of the size of the heart that is neither plainly normal nor plainly enlarged."""

UNCLEAR = "unclear"
"""A side of a single sentence that makes the side of the finding unknown."""

_SIDES = (
    ("both sides", r"bilateral(?:ly)?|bibasilar|bibasal|biapical|both (?:lungs|sides|lung bases|bases|apices)"),
    ("left", r"left|lingula\w*|lll|lul"),
    ("right", r"right|rll|rml|rul"),
)


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What the report plainly says of one finding.

    Attributes:
        present: whether it is there.
        side: left, right or both sides, where every sentence that names a present finding names that side alone.
    """

    present: bool
    side: str | None = None


def sentences(report: str) -> list[str]:
    """Sentences in lower case, section names and numbering left out; "3.5 cm" is not cut."""
    text = re.sub(r"\b(?:findings|impression)\s*:", ". ", report.lower())
    text = re.sub(r"(?:^|\s)\d+[.)]\s+", ". ", text)
    parts = re.split(r"(?<!\d)\.|\.(?!\d)|[;:!?]|\n\s*\n", text)
    return [plain for part in parts if (plain := " ".join(part.split()))]


def stated(report: str) -> dict[str, Stated]:
    """Finding -> what ``report`` plainly says of it; a finding of which it says nothing plain is left out."""
    said: dict[str, list[Stated | None]] = {name: [] for name in FINDINGS}
    for sentence in sentences(report):
        if _NORMAL_HEART.match(sentence):
            said["cardiomegaly"].append(Stated(present=False))
            continue
        found = [(name, match) for name, pattern in _PATTERNS.items() for match in pattern.finditer(sentence)]
        for name, match in found:
            said[name].append(_read(sentence, match, alone=len(found) == 1))
        if _HEART_IN_DOUBT.search(sentence) and all(name != "cardiomegaly" for name, _ in found):
            said["cardiomegaly"].append(None)
    return {name: one for name, readings in said.items() if (one := _agreed(readings)) is not None}


def _read(sentence: str, match: re.Match[str], *, alone: bool) -> Stated | None:
    """What ``sentence`` says of the finding at ``match``; None where it is not plain.

    Args:
        alone: it names no other finding, so that a side in it is the side of this one.
    """
    if "xxxx" in sentence or "___" in sentence or _DOUBT.search(sentence):
        return None
    denial = _DENIES.search(sentence)
    if denial is None:
        plain = not (_OTHER_NEGATION.search(sentence) or _PAST.search(sentence) or re.search(r"\bor\b", sentence))
        return Stated(present=True, side=_side(sentence, alone=alone)) if plain else None
    between = sentence[denial.end() : match.start()]
    after = sentence[match.end() :]
    if match.start() < denial.end() or _OTHER_NEGATION.search(sentence) or _PAST.search(sentence):
        return None
    if (
        _NOT_THE_FINDING.search(between)
        or _QUALIFIED.search(between)
        or re.match(r" (?:is|are) (?!seen|identified|present|evident|noted)", after)
    ):
        return None
    return Stated(present=False)


def _side(sentence: str, *, alone: bool) -> str | None:
    """The side that ``sentence`` names; None for none, UNCLEAR where it is not told whose or which."""
    named = [side for side, pattern in _SIDES if re.search(rf"\b(?:{pattern})\b", sentence)]
    if not named:
        return None
    return named[0] if alone and len(named) == 1 else UNCLEAR


def _agreed(readings: list[Stated | None]) -> Stated | None:
    if not readings or None in readings or len({one.present for one in readings if one}) != 1:
        return None
    sides = {one.side for one in readings if one is not None and one.side is not None}
    first = readings[0]
    assert first is not None
    return Stated(present=first.present, side=sides.pop() if len(sides) == 1 and UNCLEAR not in sides else None)
