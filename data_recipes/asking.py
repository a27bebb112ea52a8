"""One question with its answer -> a Sample, in training form or in evaluation form as its split demands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medvlm.data_recipes.box_text import reference_boxes, request_for
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Question, QuestionKind, Sample, Split, Turn, VisualRef
from medvlm.model.visual import Kind

YES_NO = ("yes", "no")
DIMENSIONS: dict[str, str] = {"image": "2d", "volume": "3d", "video": "video"}


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
) -> Sample:
    """Make the Sample: train ends with the first answer; validation and test end with the question.

    A closed prompt gets its answers appended ("Answer yes or no."), a choice prompt its lettered options, so
    that the form of the answer is never guessed by the model or by the scorer; so does a box prompt. The answer of a
    choice is its letter, that of a box its text.

    Args:
        where: "path:row", named in complaints.
        choices: closed: the answers; choice: the options in the order shown.
        extent_mm: box: the field of view in millimetres along x, y(, z), where it is known.

    Raises:
        BadSample: empty prompt or answer, an answer outside the choices, or one that is no box.
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
        prompt = f"{prompt.strip()} Answer {_spoken(choices)}."
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
    question = Question(
        kind=kind, answers=tuple(answers), choices=tuple(choices) if kind in ("closed", "choice") else (), topic=topic,
        findings=tuple(findings), extent_mm=tuple(extent_mm),
    )  # fmt: skip
    return Sample(
        sample_id=sample_id,
        patient_id=patient_id,
        study_id=study_id or patient_id,
        source=source,
        licence=licence,
        split=split,
        turns=(user, Turn(role="assistant", content=(answers[0].strip(),))) if trained else (user,),
        question=None if trained else question,
        metadata={
            "dimension": DIMENSIONS[visuals[0].kind] if visuals else "text",
            "topic": topic,
            **(metadata or {}),
        },
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
