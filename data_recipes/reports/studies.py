"""A study of several images, and a study with its prior, as one Sample: every visual stands behind its name.

The user's turn reads "Frontal:" (image) "Lateral:" (image) and the prompt; with a prior, "Prior study, 35 days
earlier:" and its views stand first, then "Current study:". Sequences of an MR study stay separate visuals, each on its
own grid.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from medvlm.data_recipes.asking import ask
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.reports.priors import speaks_of_prior
from medvlm.data_recipes.reports.sentences import sentences
from medvlm.data_recipes.sample import Part, QuestionKind, Sample, Split, Turn, VisualRef

VIEWS = ("Frontal", "Lateral", "Oblique", "Decubitus", "Axial", "Coronal", "Sagittal")
SEQUENCES = ("T1", "T1 with contrast", "T2", "FLAIR", "DWI", "ADC", "SWI", "T2*", "PD", "STIR")
UNNAMED = "View"

_VIEW_WORDS: tuple[tuple[str, str], ...] = (
    (r"lld|rld|decubitus", "Decubitus"),
    (r"lao|rao|lpo|rpo|oblique", "Oblique"),
    (r"ll|rl|lat(?:eral)?|left lateral|right lateral|xtable lateral|cross-?table lateral", "Lateral"),
    (r"pa|ap|frontal|postero-anterior|antero-posterior|posteroanterior|anteroposterior|ap axial|pa erect|ap supine",
     "Frontal"),
)  # fmt: skip
_SEQUENCE_WORDS: tuple[tuple[str, str], ...] = (
    (r"flair|tirm", "FLAIR"), (r"adc|apparent diffusion", "ADC"), (r"dwi|dti|diffusion|trace", "DWI"),
    (r"swi|swan|susceptibility", "SWI"), (r"stir", "STIR"), (r"t2\*|t2star|t2 star|gre|hemo", "T2*"),
    (r"t2w?", "T2"), (r"pdw?|proton density", "PD"),
)  # fmt: skip
_CONTRAST = r"post|gd|gad\w*|contrast|ce|km"


@dataclass(frozen=True, kw_only=True)
class View:
    """One visual of a study and its name: "Frontal", "Lateral", "T1", "FLAIR", ...

    Attributes:
        sequence: whether the name is that of an MR sequence; it goes to ``metadata["sequences"]`` then.
    """

    name: str
    visual: VisualRef
    sequence: bool = False


@dataclass(frozen=True, kw_only=True)
class PriorStudy:
    """An earlier study of the same patient, to be shown before the current one.

    Attributes:
        days: from it to the current study; None when only the order is known.
        report: its report, when it is to be read too.
    """

    study_id: str
    views: tuple[View, ...]
    days: int | None
    report: str | None = None


def view_name(*stated: str | None) -> str | None:
    """The first of ``stated`` (DICOM ViewPosition, view code meaning, a file's name) that names a view; else None."""
    for text in stated:
        words = re.sub(r"[_/]+", " ", (text or "").lower()).strip()
        for pattern, name in _VIEW_WORDS:
            if re.search(rf"(?<![a-z])(?:{pattern})(?![a-z])", words):
                return name
    return None


def sequence_name(description: str) -> str | None:
    """The MR sequence that a series description names ("AX T1 POST GD" is "T1 with contrast"); else None."""
    words = re.sub(r"[_/-]+", " ", description.lower())

    def says(pattern: str) -> bool:
        return re.search(rf"(?<![a-z0-9])(?:{pattern})(?![a-z0-9*])", words) is not None

    if says("t1w?"):
        # Before FLAIR: "T1 FLAIR" is a T1-weighted sequence.
        return "T1 with contrast" if says(_CONTRAST) or "+c" in words.replace(" ", "") else "T1"
    if says("t1c|t1ce|t1gd"):
        return "T1 with contrast"
    return next((name for pattern, name in _SEQUENCE_WORDS if says(pattern)), None)


def ordered(views: Sequence[View]) -> tuple[View, ...]:
    """``views`` in the order of VIEWS and SEQUENCES; others behind, and equal names, as they were given."""
    ranks = {name: place for place, name in enumerate((*VIEWS, *SEQUENCES))}
    return tuple(sorted(views, key=lambda view: ranks.get(view.name, len(ranks))))


def labelled(views: Sequence[View]) -> tuple[Part, ...]:
    """ "Frontal:", its visual, "Lateral:", ... in the fixed order; equal names are numbered ("Frontal 1:")."""
    total, seen = Counter(view.name for view in views), Counter[str]()
    parts: list[Part] = []
    for view in ordered(views):
        seen[view.name] += 1
        number = f" {seen[view.name]}" if total[view.name] > 1 else ""
        parts += [f"{view.name}{number}:", view.visual]
    return tuple(parts)


def interval(days: int | None) -> str:
    """ "Prior study, 35 days earlier:"; "Prior study:" when only the order is known."""
    if days is None:
        return "Prior study:"
    if days == 0:
        return "Prior study, earlier on the same day:"
    return f"Prior study, {days} {'day' if days == 1 else 'days'} earlier:"


def ask_study(
    *,
    sample_id: str,
    patient_id: str,
    study_id: str,
    source: str,
    licence: str,
    split: Split,
    views: Sequence[View],
    prompt: str,
    answers: Sequence[str],
    where: str,
    prior: PriorStudy | None = None,
    kind: QuestionKind = "report",
    choices: Sequence[str] = (),
    topic: str = "report",
    findings: Sequence[dict[str, Any]] = (),
    metadata: dict[str, Any] | None = None,
) -> Sample:
    """One Sample of all visuals of a study, with its prior before them where one is given; form as asking.ask makes it.

    Metadata: ``views`` and ``sequences`` (names in the order shown), ``prior_study_id`` and ``days_since_prior`` (None
    without a prior), ``speaks_of_prior`` (the answer compares with an earlier image) and ``speaks_of_unseen_prior``
    (and none is shown).

    Args:
        prompt: the text after the visuals; history and indication may stand in it, the report may not.
        prior: shown with its images, and with its report when it has one.

    Raises:
        BadSample: no view, a prior that is the study itself or lies in its future, an answer of which a sentence stands
            in the prompt, or what asking.ask refuses.
    """
    if not views:
        raise BadSample("the study has no visual", where=where, mend="leave the study out", sample_id=sample_id)
    if prior is not None:
        _check_prior(prior, study_id, where, sample_id)
    if kind == "report" and (leak := leaked(answers[0] if answers else "", prompt)):
        raise BadSample(
            f"a sentence of {len(leak.split())} words of the report stands in its own prompt",
            where=where,
            mend="give only indication and history to the prompt",
            sample_id=sample_id,
        )
    shown = ordered(views)
    known = {
        "views": [view.name for view in shown if not view.sequence],
        "sequences": [view.name for view in shown if view.sequence],
    }
    speaks = bool(speaks_of_prior(" ".join(answers)))
    sample = ask(
        sample_id=sample_id, patient_id=patient_id, study_id=study_id, source=source, licence=licence, split=split,
        visuals=[view.visual for view in shown], prompt=prompt, answers=answers, where=where, kind=kind,
        choices=choices, topic=topic, findings=findings,
        metadata={
            **known,
            "prior_study_id": prior.study_id if prior else None,
            "days_since_prior": prior.days if prior else None,
            "speaks_of_prior": speaks,
            "speaks_of_unseen_prior": speaks and prior is None,
            **(metadata or {}),
        },
    )  # fmt: skip
    first = sample.turns[0]
    content: tuple[Part, ...] = (*labelled(views), first.content[-1])
    if prior is not None:
        report = (f"Report of the prior study: {prior.report.strip()}",) if prior.report else ()
        content = (interval(prior.days), *labelled(prior.views), *report, "Current study:", *content)
    return replace(sample, turns=(Turn(role="user", content=content), *sample.turns[1:]))


def leaked(answer: str, context: str, *, least_words: int = 6) -> str | None:
    """The first sentence of ``answer``, of at least so many words, that stands in ``context``; None when none does."""
    given = _words(context)
    for sentence in sentences(answer):
        words = _words(sentence.text)
        if len(words.split()) >= least_words and f" {words} " in f" {given} ":
            return sentence.text
    return None


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _check_prior(prior: PriorStudy, study_id: str, where: str, sample_id: str) -> None:
    if prior.study_id == study_id:
        raise BadSample("the study is given as its own prior", where=where, mend="link it again", sample_id=sample_id)
    if prior.days is not None and prior.days < 0:
        raise BadSample(
            f"the prior study is {-prior.days} days later than the study",
            where=where,
            mend="link it again by date",
            sample_id=sample_id,
        )
    if not prior.views:
        raise BadSample("the prior study has no visual", where=where, mend="leave the prior out", sample_id=sample_id)
