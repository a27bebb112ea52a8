"""Which earlier study of a patient stands before which, by date and time; and texts that speak of one.

A report that compares with an image which the model does not see teaches it to invent comparisons (Ramesh et al.,
Improving radiology report generation systems by removing hallucinated references to non-existent priors, ML4H 2022,
arXiv:2210.06340). RECAP (Hou et al., Findings of EMNLP 2023) and other longitudinal work show the prior instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.reports.cleaning import Cleaned, Policy, drop_places


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When a study was made; ``clock`` is None when only the day is known."""

    day: date
    clock: time | None = None


@dataclass(frozen=True, kw_only=True)
class StudyTime:
    """What linking needs to know of a study.

    Attributes:
        moment: None when the date is not known.
        modality, body_part: as the source writes them; None when it says nothing.
    """

    study_id: str
    patient_id: str
    moment: Moment | None
    modality: str | None = None
    body_part: str | None = None


@dataclass(frozen=True, kw_only=True)
class Link:
    """The prior of a study, or why it has none.

    Attributes:
        prior_id: None when there is none, or when it cannot be told which.
        days: whole days from the prior to the study; None without a prior.
        reason: "linked", or why not.
    """

    study_id: str
    prior_id: str | None
    days: int | None
    reason: str


def read_moment(day: str, clock: str = "", *, where: str) -> Moment | None:
    """DICOM date and time: "21800506" or "2180-05-06", and "213014.531", "213014" or "21:30:14"; None without a date.

    A time that a table stored as a number has lost its leading zeros ("1405.0" is 00:14:05), so digits before the point
    are filled to six. An empty time leaves only the day.

    Raises:
        BadSample: a date or a time that is none.
    """
    digits = day.strip().removesuffix(".0").replace("-", "")
    if not digits:
        return None
    try:
        when = datetime.strptime(digits, "%Y%m%d").date()
    except ValueError as error:
        raise BadSample(f"the study date {day!r} is no date", where=where, mend="write it as YYYYMMDD") from error
    bare = clock.strip().partition(".")[0].replace(":", "")
    if not bare:
        return Moment(day=when)
    try:
        return Moment(day=when, clock=datetime.strptime(bare.zfill(6), "%H%M%S").time())
    except ValueError as error:
        raise BadSample(f"the study time {clock!r} is no time", where=where, mend="write it as HHMMSS") from error


def link_priors(studies: Iterable[StudyTime], *, window_days: int | None = None) -> dict[str, Link]:
    """The latest earlier study of the same patient, modality and body part, for every study.

    Only an unknown modality equals an unknown one; so do body parts. Where the order cannot be told (no date; two
    studies of one day of which one has no time; two at the same moment), a study stays without a prior, and the reason
    says so.

    Args:
        window_days: the prior may be at most so many days earlier; None for any.

    Returns:
        study_id -> Link, for all studies, in the order given.

    Raises:
        ValueError: a study_id that is given twice, or a negative window.
    """
    if window_days is not None and window_days < 0:
        raise ValueError(f"link_priors: window_days is {window_days}; give a whole number from 0, or None")
    known: dict[str, StudyTime] = {}
    patients: dict[str, list[StudyTime]] = {}
    for study in studies:
        if study.study_id in known:
            raise ValueError(f"link_priors: study {study.study_id!r} is given twice; give each study once")
        known[study.study_id] = study
        patients.setdefault(study.patient_id, []).append(study)
    return {name: _link(study, patients[study.patient_id], window_days) for name, study in known.items()}


def _link(study: StudyTime, all_of_patient: Sequence[StudyTime], window_days: int | None) -> Link:
    def none(reason: str) -> Link:
        return Link(study_id=study.study_id, prior_id=None, days=None, reason=reason)

    others = [other for other in all_of_patient if other is not study]
    if not others:
        return none("the patient has no other study")
    if study.moment is None:
        return none("the study has no date")
    alike = [o for o in others if (o.modality, o.body_part) == (study.modality, study.body_part)]
    if not alike:
        return none("every other study is of another or an unknown modality or body part")
    dated = [(o, o.moment) for o in alike if o.moment is not None]
    orders = [(o, moment, _order(moment, study.moment)) for o, moment in dated]
    if any(order is None for _, _, order in orders):
        return none("another study is of the same day, and no time says which came first")
    earlier = [(o, moment) for o, moment, order in orders if order == -1]
    if not earlier:
        undated = len(dated) < len(alike)
        return none("no other study is known to be earlier" if undated else "no other study is earlier")
    if len(dated) < len(alike):
        return none("another study has no date, so that the latest earlier one is not known")
    latest = [(o, m) for o, m in earlier if not any(_order(m, n) == -1 for _, n in earlier)]
    if len(latest) > 1:
        return none("two earlier studies are equally late, as far as dates and times tell")
    prior, moment = latest[0]
    days = (study.moment.day - moment.day).days
    if window_days is not None and days > window_days:
        return none(f"the latest earlier study is {days} days earlier, outside the window of {window_days}")
    return Link(study_id=study.study_id, prior_id=prior.study_id, days=days, reason="linked")


def _order(one: Moment, other: Moment) -> int | None:
    """-1 when ``one`` is earlier, 1 when later, None when that cannot be told (the same moment included)."""
    if one.day != other.day:
        return -1 if one.day < other.day else 1
    if one.clock is None or other.clock is None or one.clock == other.clock:
        return None
    return -1 if one.clock < other.clock else 1


# --- texts that speak of a prior -----------------------------------------------------------------------------------

_STUDY = (
    r"(?:chest |portable |frontal |lateral |outside |abdominal )*(?:stud(?:y|ies)|exam(?:ination)?s?|radiographs?"
    r"|films?|x-?\s?rays?|images?|imaging"
    r"|cts?|ct scans?|scans?|mris?|mammograms?|ultrasounds?|sonograms?|views?|reports?)"
)
_PAST = (
    r"(?:[\w-]+ ){0,2}(?:\w*(?:ectomy|otomy|plasty|scopy|graft|fusion)|surger\w+|granulomatous|infection|trauma|cabg)"
)
"""What was once done or suffered, and is no image: "changes from prior cholecystectomy"."""

_PRIOR: dict[str, str] = {
    "en": rf"compar(?:ed|ison)\s+(?:to|with)|in comparison|comparison(?! *:? *none)(?=\W+(?:is|was|made|{_STUDY}))"
    r"|comparison:?(?= (?:X{3,}|_{2,}|\d))|unchanged|no change"
    r"|no (?:significant |appreciable |relevant )*interval change"
    r"|(?:no|without) (?:significant|appreciable|relevant) change|remains?(?! of)"
    r"|(?<!qt )(?<!pr )(?<!time )interval(?!s)"
    r"|in the interim|again (?:seen|noted|demonstrated|identified|visualized|appreciated)|redemonstrat\w+"
    rf"|(?:prior|previous|preceding|earlier|most recent|last) {_STUDY}"
    rf"|(?:from|since|than|on|to) (?:the )?(?:prior|previous)\b(?! {_PAST})"
    r"|previously (?:seen|noted|described|identified|demonstrated|visualized|reported)"
    r"|(?<!hemodynamically )(?<!clinically )\bstable\b|persist(?:s|ent|ently|ing)|has (?:been removed|resolved|cleared)"
    r"|(?:has|have) (?:slightly |mildly |markedly |significantly |not |minimally |substantially )*"
    r"(?:changed|improved|worsened|increased|decreased|progressed|developed|enlarged|resolved|cleared|been removed)"
    r"|(?:improv|worsen|resolv|progress)(?:ed|ing)|(?:increas|decreas|enlarg)ing|new(?:ly)?(?! york| england| zealand)"
    r"|since (?:the )?(?:last|\w+ (?:exam|study|radiograph|film))|interim|as before|follow-?up of (?:known|the)",
    "de": r"im vergleich|verglichen mit|unver[aä]ndert\w*|voraufnahmen?|voruntersuchung\w*|im verlauf"
    r"|vorbestehend\w*|vorbekannt\w*|neu aufgetreten\w*|gegenüber der vor\w+|r[uü]ckl[aä]ufig\w*",
    "es": r"comparad[oa]s? con|en comparación|respecto (?:al?|del) (?:estudio|previo|control)\w*"
    r"|sin cambios|estudio previo|radiografía previa|\bpersiste\w*",
    "fr": r"par rapport à|comparé(?:e|s|es)? (?:à|au|aux)|inchangée?s?|examen (?:précédent|antérieur)|cliché antérieur"
    r"|comparativement",
    "pt": r"em comparação|comparad[oa]s? (?:com|ao)|inalterad[oa]s?|sem alterações em relação|exame anterior"
    r"|estudo anterior",
}
_SPEAKS = re.compile(rf"(?<![\w-])(?:{'|'.join(_PRIOR.values())})(?!\w)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Mention:
    """Words that speak of an earlier image, at ``start`` to ``end``."""

    words: str
    start: int
    end: int


def speaks_of_prior(text: str) -> tuple[Mention, ...]:
    """Where ``text`` compares with an earlier image, in words of five languages; empty when it does not.

    A rule by words: it finds "unchanged", "interval increase", "compared to", "stable"; not "QT interval", "prior
    sternotomy" or "hemodynamically stable". It misses what is said in other words ("larger nodule").
    """
    return tuple(
        Mention(words=match.group().strip(), start=match.start(), end=match.end()) for match in _SPEAKS.finditer(text)
    )


def without_prior(text: str, policy: Policy, *, where: str, empty_ok: bool = False) -> Cleaned:
    """``text`` under ``policy``, as to sentences that speak of a prior; ``Cleaned.blanks`` is empty.

    Args:
        empty_ok: the text is "" when no sentence is left, instead of a BadSample.

    Raises:
        BadSample: the policy is to refuse and there is one, or no sentence is left.
        ValueError: an unknown policy.
    """
    found = speaks_of_prior(text)
    refusal = BadSample(
        f"the text speaks of an earlier image ({found[0].words if found else ''!r}) and none is shown",
        where=where,
        mend="show the prior study, leave the report out, or choose the policy drop_sentence or keep",
    )
    return drop_places(text, tuple((m.start, m.end) for m in found), policy, refusal, empty_ok=empty_ok)
