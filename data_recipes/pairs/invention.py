"""A report with a finding that is not there, in words that radiologists used for another patient."""

from __future__ import annotations

import re

import numpy as np

from medvlm.data_recipes.pairs.case import Case, Change
from medvlm.data_recipes.pairs.english import HEADING, Sentence, sentences
from medvlm.data_recipes.pairs.finding_words import asserted, group_of, is_salient, mentioned, region_of
from medvlm.data_recipes.pairs.omission import section_of
from medvlm.data_recipes.pairs.pool import Pool

MOST_WORDS = 20
_REFERS = re.compile(
    r"\b(?:this|these|that|those|it|its|again|stable|unchanged|interval|previous(?:ly)?|"
    r"prior|compar\w+|since|new|newly|old|"
    r"increas\w+|decreas\w+|improv\w+|worsen\w+|persist\w+|residual|remain\w*|"
    r"redemonstrat\w+|also|other|same|above|below|"
    r"additional|history|status post|as before|known|progress\w*|now|today|exam\w*|"
    r"study|image[sd]?|films?|mentioned|"
    r"described)\b|x{3,}|_{3,}|\[",
    re.I,
)
_RUNS_ON = re.compile(r"[a-z] (?:There|The|A) ")
"""Two sentences without a stop between them."""

_NORMAL_OF: tuple[tuple[re.Pattern[str], frozenset[str]], ...] = (
    (
        re.compile(
            r"\b(?:lungs?|lung fields|airspaces?)\b[^.;]*\b(?:clear|normal|unremarkable|free)|\bclear lungs\b", re.I
        ),
        frozenset({"lung"}),
    ),
    (re.compile(r"\bpleura\w*\b[^.;]*\b(?:clear|normal|unremarkable|free)", re.I), frozenset({"pleura"})),
    (
        re.compile(
            r"\b(?:heart|cardi\w+)\b[^.;]*\b(?:normal|unremarkable|limits)|\bnormal (?:heart|"
            r"cardi\w+)|\bnormal \w+ \w+ (?:of )?the heart",
            re.I,
        ),
        frozenset({"heart"}),
    ),
    (
        re.compile(
            r"\b(?:cardio)?mediastin\w+\b[^.;]*\b(?:normal|unremarkable|limits|midline)|\bnormal[^.;]*\b(?:cardio)?mediastin\w+|"
            r"\bhila\w*\b[^.;]*\b(?:normal|unremarkable)",
            re.I,
        ),
        frozenset({"mediastinum"}),
    ),
    (
        re.compile(
            r"\b(?:bon[ey]\w*|osse(?:o)?us|skelet\w+|ribs?|spine|vertebra\w*)\b[^.;]*\b(?:intact|"
            r"unremarkable|normal|no acute|without)|\bno[^.;]*\b(?:bon[ey]|osse(?:o)?us|"
            r"skelet\w+|rib)\b",
            re.I,
        ),
        frozenset({"bone"}),
    ),
    (
        re.compile(
            r"\b(?:abdom\w+|bowel|liver|kidneys?|spleen|pancreas|soft tissues?)\b[^.;]*\b(?:unremarkable|"
            r"normal)",
            re.I,
        ),
        frozenset({"abdomen"}),
    ),
    (re.compile(r"\b(?:brain|ventric\w+|parenchyma)\b[^.;]*\b(?:normal|unremarkable)", re.I), frozenset({"brain"})),
)
"""What a sentence calls normal as a whole, by region."""

_GENERAL = re.compile(
    r"^(?:otherwise,? )?(?:(?:there (?:is|are) )?no (?:evidence (?:of|for) )?(?:an? )?(?:acute|"
    r"active|significant)\b"
    r"[^.;]*\b(?:disease|abnormalit\w+|process\w*|findings?|pathology)|negative for acute \w+|"
    r"(?:normal|negative|unremarkable) (?:chest|exam\w*|study|radiograph\w*|ct|mri|scan)\b|stable chest)",
    re.I,
)
"""A sentence that says that nothing is wrong: it cannot stay beside an invented finding."""

_GENERAL_OF: tuple[tuple[re.Pattern[str], frozenset[str]], ...] = (
    (re.compile(r"\b(?:bon[ey]|osse(?:o)?us|skelet\w+|ribs?)\b", re.I), frozenset({"bone"})),
    (
        re.compile(r"cardio|pulmon|cardiac|pleura|intrathoracic", re.I),
        frozenset({"lung", "pleura", "heart", "mediastinum"}),
    ),
    (re.compile(r"abdom|bowel|pelvi", re.I), frozenset({"abdomen"})),
    (re.compile(r"intracran", re.I), frozenset({"brain"})),
)
"""Where nothing is wrong, when the sentence says where."""


def invented_finding(case: Case, rng: np.random.Generator, pool: Pool) -> Change | None:
    """A sentence about a finding of another patient is added; what says that nothing is wrong there is taken out.

    Never a finding, nor another word for it, that the report names itself, denied or not; and only findings whose
    absence silence implies. It stands where the sentence stood that it contradicts, else at the end of the findings.
    """
    if not case.english or not case.is_report:
        return None
    mention = mentioned(case.answer)
    named = {group_of(key) for key in mention} | ({"lung mass"} if "opacity" in mention else set())
    for other in pool.others(case.group, case.sample.patient_id, rng):
        if not other.report:
            continue
        for sentence in sentences(other.answer):
            keys = usable_keys(sentence)
            if not keys or named & {group_of(key) for key in keys}:
                continue
            change = _insert(case, sentence.text, keys)
            if change is not None:
                how = {**change.how, "finding": list(keys), "from_sample": other.sample_id}
                return Change(text=change.text, how=how)
    return None


def usable_keys(sentence: Sentence) -> tuple[str, ...]:
    """The findings of a sentence that stands on its own, without reference to a prior or to another sentence."""
    keys = asserted(sentence)
    whole = sentence.asserted == len(sentence.text) and len(sentence.text.split()) <= MOST_WORDS
    if not keys or not whole or not sentence.text.endswith(".") or not all(map(is_salient, keys)):
        return ()
    if (
        len(sentence.text.split()) < 3
        or _REFERS.search(sentence.text)
        or _RUNS_ON.search(sentence.text)
        or not sentence.text[0].isupper()
    ):
        return ()
    return keys


def _insert(case: Case, new: str, keys: tuple[str, ...]) -> Change | None:
    regions = {region_of(key) for key in keys}
    against = [s for s in case.sentences if _normal_regions(s.text) & regions]
    if any(mentioned(s.text) or not _together(_normal_regions(s.text), regions) for s in against):
        return None  # it says more than that all is well there: it cannot be taken out
    general = [s for s in case.sentences if s not in against and _denies_all(s.text, regions)]
    if any(mentioned(s.text) for s in general):
        return None
    place = against[0].start if against else _end_of_findings(case)
    # The impression must not stay behind empty, nor deny what the findings say.
    elsewhere = [s for s in general if section_of(case.answer, s.start) != section_of(case.answer, max(0, place - 1))]
    edits = [(s.start, s.end, "") for s in (*against, *general)]
    if against:
        edits[0] = (against[0].start, against[0].end, new)
        elsewhere = [s for s in general if section_of(case.answer, s.start) != section_of(case.answer, place)]
    else:
        edits.append((place, place, f" {new} "))
    if elsewhere:
        first = elsewhere[0]
        edits = [(a, b, new if a == first.start else text) for a, b, text in edits]
    text = case.answer
    for start, end, put in sorted(edits, reverse=True):
        text = text[:start] + put + text[end:].lstrip(" " if not put else "")
    how = {"old": [s.text for s in (*against, *general)], "new": new, "at": place}
    return Change(text=re.sub(r" {2,}", " ", text).strip(), how=how)


def _together(named: set[str], regions: set[str]) -> bool:
    """Whether a sentence about ``named`` is about ``regions``; heart and mediastinum are looked at together."""
    return named <= regions or named | regions <= {"heart", "mediastinum"}


def _normal_regions(text: str) -> set[str]:
    return {region for pattern, named in _NORMAL_OF if pattern.search(text) for region in named}


def _denies_all(text: str, regions: set[str]) -> bool:
    if not _GENERAL.search(text):
        return False
    named = {region for pattern, where in _GENERAL_OF if pattern.search(text) for region in where}
    return not named or bool(named & regions)


def _end_of_findings(case: Case) -> int:
    """Before the heading of the impression, else the end of the answer."""
    for match in HEADING.finditer(case.answer):
        if match[0].lower().startswith(("impression", "conclusion")) and match.start() > 0:
            return match.start()
    return len(case.answer)
