"""What is said about a patient: reports, questions with their answers, and wrong reports to prefer against."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from medvlm.data_recipes.box_text import request_for, to_text
from medvlm.data_recipes.grounding import Box
from medvlm.data_recipes.phantoms.patient import (
    CHANGES,
    CHEST_KINDS,
    FOCAL,
    HEART_GRADES,
    PLEURAL_GRADES,
    SIDES,
    SIZES_MM,
    ZONES,
    Finding,
    draw_finding,
)
from medvlm.data_recipes.sample import Question, QuestionKind

REPORT_REQUEST = "Write the report."
CAPTION_REQUEST = "Describe the image briefly."
CORRUPTIONS = ("negation_flip", "side_flip", "severity_swap", "invented_finding")
Corruption = Literal["negation_flip", "side_flip", "severity_swap", "invented_finding"]

_ADVERB = {"mild": "mildly", "moderate": "moderately", "severe": "severely"}
_ARTICLE = {"nodule": "a ", "mass": "a ", "pleural effusion": "a ", "pneumothorax": "a ", "pericardial effusion": "a "}
_PRESENCE = ("Is there {}?", "Does the study show {}?", "Can {} be seen?")
_WHERE = ("Where is {}?", "Give the box of {}.", "Locate {}.")
_SIDE = ("On which side {} the {}?", "Which side {} the {} on?")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One question about one finding, ready for training (prompt, answer) and for scoring (``question``)."""

    prompt: str
    question: Question

    @property
    def answer(self) -> str:
        return self.question.answers[0]


def said_size(size_mm: int) -> int:
    """The size as reports give it: rounded to 5 mm."""
    return 5 * round(size_mm / 5)


# --- reports -------------------------------------------------------------------------------------------------


def _finding_sentence(finding: Finding) -> str:
    place = f"in the {finding.side} {finding.zone} zone"
    match finding.kind:
        case "nodule" if finding.count and finding.count > 1:
            return f"There are {finding.count} nodules of {said_size(finding.size_mm or 0)} mm {place}."
        case "nodule" | "mass":
            return f"There is a {said_size(finding.size_mm or 0)} mm {finding.kind} {place}."
        case "consolidation":
            return f"There is consolidation {place}."
        case "cardiomegaly":
            return f"The heart is {_ADVERB[str(finding.severity)]} enlarged."
        case "reduced motion":
            return f"There is {_ADVERB[str(finding.severity)]} reduced motion."
        case "pericardial effusion":
            return "There is a pericardial effusion."
    return f"There is a {finding.severity} {finding.side} {finding.kind}."


def _impression_sentence(finding: Finding) -> str:
    if finding.kind in FOCAL:
        side = str(finding.side)
        if finding.count is not None and finding.count > 1:
            return f"{finding.count} {side} {finding.zone} zone nodules."
        return f"{side.capitalize()} {finding.zone} zone {finding.kind}."
    if finding.kind == "cardiomegaly":
        return f"{str(finding.severity).capitalize()} cardiomegaly."
    if finding.kind == "reduced motion":
        return f"{_ADVERB[str(finding.severity)].capitalize()} reduced motion."
    if finding.kind == "pericardial effusion":
        return "Pericardial effusion."
    return f"{str(finding.severity).capitalize()} {finding.side} {finding.kind}."


def in_order(findings: tuple[Finding, ...], kinds: tuple[str, ...]) -> list[Finding]:
    """``findings`` in the order of ``kinds``."""
    return sorted(findings, key=lambda finding: kinds.index(finding.kind))


def impression(findings: tuple[Finding, ...], kinds: tuple[str, ...] = CHEST_KINDS) -> str:
    """The positives, briefly."""
    return " ".join(_impression_sentence(f) for f in in_order(findings, kinds)) or "No abnormality."


def report(findings: tuple[Finding, ...], kinds: tuple[str, ...] = CHEST_KINDS) -> str:
    """One sentence for each of ``kinds`` in their fixed order, then the impression."""
    present = {finding.kind: finding for finding in findings}
    body = " ".join(_finding_sentence(present[k]) if k in present else f"No {k}." for k in kinds)
    return f"Findings: {body} Impression: {impression(findings, kinds)}"


def as_dict(finding: Finding | None, kind: str) -> dict[str, Any]:
    """One known finding as ``Question.findings`` holds it; None means that ``kind`` is absent."""
    known = finding or Finding(kind=kind)
    return {
        "kind": kind,
        "present": finding is not None,
        "side": known.side,
        "zone": known.zone,
        "size_mm": known.size_mm,
        "count": known.count,
        "severity": known.severity,
    }


def as_dicts(findings: tuple[Finding, ...], kinds: tuple[str, ...] = CHEST_KINDS) -> tuple[dict[str, Any], ...]:
    """Every kind, present or not, in the order of ``kinds``."""
    present = {finding.kind: finding for finding in findings}
    return tuple(as_dict(present.get(kind), kind) for kind in kinds)


# --- questions -----------------------------------------------------------------------------------------------


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _ask(
    prompt: str, kind: QuestionKind, topic: str, about: dict[str, Any], *answers: str, choices: tuple[str, ...] = ()
) -> Ask:
    question = Question(kind=kind, answers=answers, choices=choices, topic=topic, findings=(about,))
    return Ask(prompt=prompt, question=question)


def _ask_presence(kind: str, finding: Finding | None, rng: np.random.Generator) -> Ask:
    prompt = _pick(rng, _PRESENCE).format(_ARTICLE.get(kind, "") + kind) + " Answer yes or no."
    answer = "no" if finding is None else "yes"
    return _ask(prompt, "closed", "presence", as_dict(finding, kind), answer, choices=("yes", "no"))


def _noun(finding: Finding) -> tuple[str, str]:
    several = finding.count is not None and finding.count > 1
    return ("are", "nodules") if several else ("is", finding.kind)


def _ask_details(finding: Finding, rng: np.random.Generator) -> list[Ask]:
    """Side, zone, size, count and severity, each where the finding has one."""
    about, (verb, noun) = as_dict(finding, finding.kind), _noun(finding)
    asks = []
    if finding.side is not None:
        prompt = _pick(rng, _SIDE).format(verb, noun) + " Answer left or right."
        asks.append(_ask(prompt, "closed", "side", about, finding.side, choices=SIDES))
    if finding.zone is not None:
        options = tuple(str(zone) for zone in rng.permutation(ZONES))
        letters = "\n".join(f"{letter}. {zone}" for letter, zone in zip("ABC", options, strict=True))
        prompt = f"In which zone {verb} the {noun}?\n{letters}\nAnswer with the letter."
        letter = "ABC"[options.index(finding.zone)]
        asks.append(_ask(prompt, "choice", "zone", about, letter, choices=options))
    if finding.size_mm is not None:
        size = said_size(finding.size_mm)
        asks.append(_ask(f"About how large {verb} the {noun}?", "open", "size", about, f"{size} mm"))
    if finding.count is not None:
        asks.append(_ask("How many nodules are there?", "open", "count", about, str(finding.count)))
    if finding.severity is not None:
        prompt = f"How severe is the {finding.kind}? Answer with one word."
        asks.append(_ask(prompt, "open", "severity", about, finding.severity))
    return asks


def questions(
    findings: tuple[Finding, ...], rng: np.random.Generator, kinds: tuple[str, ...] = CHEST_KINDS
) -> list[Ask]:
    """Questions about one picture: presence of what is there and of as much that is not, then the details.

    Patients without findings have only answers "no", so patients with two give back a "no" three times in four:
    over many patients "yes" and "no" are equally frequent, for each kind.
    """
    present = {finding.kind: finding for finding in findings}
    absent = [kind for kind in kinds if kind not in present]
    if kinds == CHEST_KINDS:
        wanted = {0: 2, 1: 1, 2: 2 if rng.random() < 0.25 else 1}[len(present)]
        absent = [absent[i] for i in rng.permutation(len(absent))[:wanted]]
    asks = [_ask_presence(kind, present.get(kind), rng) for kind in (*present, *absent)]
    for finding in in_order(findings, kinds):
        asks.extend(_ask_details(finding, rng))
    return asks


def ask_box(finding: Finding, boxes: tuple[Box, ...], extent: tuple[float, ...], wording: int, *, mm: bool) -> Ask:
    """Where the finding is: a referring expression to be answered with a box, of any of several nodules.

    Args:
        boxes: of the finding, at least one.
        extent: field of view in millimetres along x, y(, z).
        wording: any number; chooses among the wordings.
        mm: answer in millimetres instead of fractions of the field of view.
    """
    name = "one of the nodules" if len(boxes) > 1 else f"the {finding.kind}"
    name = "the enlarged heart" if finding.kind == "cardiomegaly" else name
    answers = tuple(to_text(box, extent if mm else None) for box in boxes)
    prompt = f"{_WHERE[wording % len(_WHERE)].format(name)} {request_for(answers[0], len(extent))}"
    question = Question(
        kind="box", answers=answers, topic="box_mm" if mm else "box", findings=(as_dict(finding, finding.kind),),
        extent_mm=extent,
    )  # fmt: skip
    return Ask(prompt=prompt, question=question)


def ask_region(finding: Finding, box: Box) -> Ask:
    """What is in the box: a region to be described."""
    one = finding if finding.count is None else replace(finding, count=1)
    answer = _impression_sentence(one)
    return _ask(f"What is in {to_text(box)}? Answer briefly.", "open", "region", as_dict(one, one.kind), answer)


def ask_change(finding: Finding) -> Ask:
    """The question about two radiographs; the prior stands first."""
    if finding.change is None:
        raise ValueError(
            f"the {finding.kind} has no change; ask only about the first finding of a patient with a prior"
        )
    _, noun = _noun(finding)
    verb = "Are" if noun == "nodules" else "Is"
    prompt = (
        "The first image is the prior, the second image is the current one. "
        f"{verb} the {noun} larger, smaller, unchanged or new? Answer larger, smaller, unchanged or new."
    )
    return _ask(prompt, "choice", "change", as_dict(finding, finding.kind), finding.change, choices=CHANGES)


def ask_report(findings: tuple[Finding, ...], kinds: tuple[str, ...] = CHEST_KINDS) -> Ask:
    """The request for the whole report."""
    question = Question(
        kind="report", answers=(report(findings, kinds),), topic="report", findings=as_dicts(findings, kinds)
    )
    return Ask(prompt=REPORT_REQUEST, question=question)


# --- wrong reports -------------------------------------------------------------------------------------------


def possible_corruptions(findings: tuple[Finding, ...]) -> tuple[Corruption, ...]:
    """The ways in which a report of these chest findings can be made wrong."""
    ways: list[Corruption] = ["invented_finding"]
    if any(f.side is not None for f in findings):
        ways.insert(0, "side_flip")
    if findings:
        ways = ["negation_flip", *ways, "severity_swap"]
    return tuple(ways)


def corrupt(findings: tuple[Finding, ...], how: Corruption, rng: np.random.Generator) -> tuple[Finding, ...]:
    """Chest findings that differ from ``findings`` in exactly one way.

    negation_flip drops a finding, side_flip moves one to the other side, severity_swap changes one's severity (or the
    zone or size of a focal finding), invented_finding adds an absent kind.

    Raises:
        ValueError: ``how`` does not apply; see possible_corruptions.
    """
    if how not in possible_corruptions(findings):
        raise ValueError(f"{how} does not apply to {[f.kind for f in findings]}; use {possible_corruptions(findings)}")
    if how == "invented_finding":
        present = {finding.kind for finding in findings}
        kind = _pick(rng, tuple(kind for kind in CHEST_KINDS if kind not in present))
        return (*findings, draw_finding(kind, rng))
    eligible = [i for i, f in enumerate(findings) if how != "side_flip" or f.side is not None]
    at = eligible[int(rng.integers(len(eligible)))]
    before, after = findings[:at], findings[at + 1 :]
    if how == "negation_flip":
        return before + after
    chosen = findings[at]
    if how == "side_flip":
        return (*before, replace(chosen, side="left" if chosen.side == "right" else "right"), *after)
    return (*before, _swap(chosen, rng), *after)


def _swap(finding: Finding, rng: np.random.Generator) -> Finding:
    if finding.severity is not None:
        grades = HEART_GRADES if finding.kind == "cardiomegaly" else PLEURAL_GRADES
        return replace(finding, severity=_pick(rng, tuple(g for g in grades if g != finding.severity)))
    if finding.size_mm is None or rng.random() < 0.5:
        return replace(finding, zone=_pick(rng, tuple(z for z in ZONES if z != finding.zone)))
    low, high = SIZES_MM[finding.kind]
    # The end of the range that is further away, so that the reports really differ.
    return replace(finding, size_mm=low if finding.size_mm - low > high - finding.size_mm else high)
