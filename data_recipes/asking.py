"""One question with its answer -> a Sample, in training form or in evaluation form as its split demands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medvlm.data_recipes.box_text import reference_boxes, request_for
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Question, QuestionKind, Sample, Split, Turn, VisualRef
from medvlm.model.visual import Kind

YES_NO = ("yes", "no")
DIMENSIONS: dict[str, str] = {"image": "2d", "volume": "3d", "video": "video"}
SEPARATOR, NONE_OF_THEM = "; ", "none"
"""Between labels, and what is written when no label or no entity is there."""
ENTITIES = "entities"
"""The topic of a span question that asks for all entities of one type: its answer lists them, one a line."""


def ask(
    *,
    sample_id: str,
    patient_id: str,
    source: str,
    licence: str,
    split: Split,
    prompt: str,
    answers: Sequence[str],
    where: str,
    visuals: Sequence[VisualRef] = (),
    kind: QuestionKind = "open",
    choices: Sequence[str] = (),
    topic: str = "other",
    study_id: str | None = None,
    findings: Sequence[dict[str, Any]] = (),
    extent_mm: Sequence[float] = (),
    metadata: dict[str, Any] | None = None,
    ending: str = "",
) -> Sample:
    """Make the Sample: train ends with the first answer; validation and test end with the question.

    A closed prompt gets its answers appended ("Answer yes or no."), a choice prompt its lettered options, so
    that the form of the answer is never guessed by the model or by the scorer; so do prompts for boxes, labels, spans
    and JSON. The answer of a choice is its letter, that of a box its text; labels are all the labels that hold, or
    "none"; entities (a span with the topic ENTITIES) are one text with one of them a line, or "none".

    Args:
        where: "path:row", named in complaints.
        choices: closed: the answers; choice: the options in the order shown; labels: all that may hold.
        extent_mm: box: the field of view in millimetres along x, y(, z), where it is known.
        ending: closed: asks for the answers in words of another language than English.

    Raises:
        BadSample: empty prompt or answer, an answer outside the choices, or one that is no box or no JSON object.
    """
    if not prompt.strip():
        raise BadSample("the question is empty", where=where, mend="fill in the question or drop the row")
    if not answers or not all(answer.strip() for answer in answers):
        raise BadSample(
            "the answer is empty: there is nothing to learn or to score",
            where=where,
            mend="fill in the answer or drop the row",
            sample_id=sample_id,
        )
    letters = tuple(chr(ord("A") + place) for place in range(len(choices)))
    if kind == "closed":
        prompt = f"{prompt.strip()} {ending or f'Answer {_spoken(choices)}.'}"
        allowed = tuple(choices)
    elif kind == "choice":
        options = "\n".join(f"{letter}. {text}" for letter, text in zip(letters, choices, strict=True))
        prompt = f"{prompt.strip()}\n{options}\nAnswer with the letter."
        allowed = letters
    elif kind == "box":
        try:
            axes = len(reference_boxes(answers, extent_mm)[0].low)
        except ValueError as error:
            raise BadSample(str(error), where=where, mend="correct the box", sample_id=sample_id) from error
        prompt, allowed = f"{prompt.strip()} {request_for(answers[0], axes)}", tuple(answers)
    elif kind == "labels":
        _check_labels(choices, answers, where, sample_id)
        prompt = f"{prompt.strip()} Possible answers: {SEPARATOR.join(choices)}. {_LABELS}"
        allowed = (*choices, NONE_OF_THEM)
    elif kind == "span":
        prompt, allowed = f"{prompt.strip()}\n{_ALL if topic == ENTITIES else _SPAN}", tuple(answers)
    elif kind == "json":
        _check_object(answers, where, sample_id)
        prompt, allowed = f"{prompt.strip()}\nAnswer with one JSON object and nothing else.", tuple(answers)
    else:
        allowed = tuple(answers)
    outside = [answer for answer in answers if answer not in allowed]
    if outside:
        raise BadSample(
            f"the answer {outside[0]!r} is not one of {', '.join(allowed)}",
            where=where,
            mend="correct the answer or the choices",
            sample_id=sample_id,
        )
    user = Turn(role="user", content=(*visuals, prompt.strip()))
    trained = split == "train"
    said = SEPARATOR.join(answers) if kind == "labels" else answers[0].strip()
    question = Question(
        kind=kind, answers=tuple(answers), topic=topic,
        choices=tuple(choices) if kind in ("closed", "choice", "labels") else (),
        findings=tuple(findings), extent_mm=tuple(extent_mm),
    )  # fmt: skip
    return Sample(
        sample_id=sample_id,
        patient_id=patient_id,
        study_id=study_id or patient_id,
        source=source,
        licence=licence,
        split=split,
        turns=(user, Turn(role="assistant", content=(said,))) if trained else (user,),
        question=None if trained else question,
        metadata={
            "dimension": DIMENSIONS[visuals[0].kind] if visuals else "text",
            "topic": topic,
            **(metadata or {}),
        },
    )


_LABELS = f"Name all that hold, separated by semicolons, or answer {NONE_OF_THEM}."
_ALL = f"Write each of them on a line of its own, in the words of the text, or answer {NONE_OF_THEM}."
_SPAN = "Answer with words of the text and nothing else."


def _check_labels(choices: Sequence[str], answers: Sequence[str], where: str, sample_id: str) -> None:
    plain = [choice.strip().lower() for choice in choices]
    if len(set(plain)) < max(2, len(plain)) or NONE_OF_THEM in plain or any(SEPARATOR.strip() in c for c in plain):
        raise BadSample(
            "labels must be two or more, all different, none of them called 'none' or holding a semicolon",
            where=where,
            mend="correct the labels that may hold",
            sample_id=sample_id,
        )
    if len(set(answers)) < len(answers) or (NONE_OF_THEM in answers and len(answers) > 1):
        raise BadSample(
            f"a label stands twice, or {NONE_OF_THEM!r} beside others",
            where=where,
            mend="list each label that holds once",
            sample_id=sample_id,
        )


def _check_object(answers: Sequence[str], where: str, sample_id: str) -> None:
    for answer in answers:
        try:
            value = json.loads(answer)
        except json.JSONDecodeError as error:
            raise BadSample(
                f"the answer is no JSON: {error.msg}", where=where, mend="correct the answer", sample_id=sample_id
            ) from error
        if not isinstance(value, dict) or not value:
            raise BadSample(
                "the answer must be a JSON object with fields",
                where=where,
                mend="write an object",
                sample_id=sample_id,
            )


def _spoken(choices: Sequence[str]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}"


def yes_no(answer: str) -> str | None:
    """ "yes" or "no" when that is the whole answer, else None."""
    word = answer.strip().strip(".").lower()
    return word if word in YES_NO else None


def visual_at(path: Path, *, kind: Kind, where: str, mend: str, **options: Any) -> VisualRef:
    """The VisualRef of a file that is there (its pixels are not read here).

    Raises:
        BadSample: there is no such file.
    """
    if not path.exists():
        raise BadSample(f"the {kind} {path} is missing", where=where, mend=mend)
    return VisualRef(kind=kind, path=str(path.resolve()), options=options)
