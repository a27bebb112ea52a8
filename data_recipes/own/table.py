"""Rows of columns: question and answer, caption, report, labels; the recipe says what is asked."""

from __future__ import annotations

from collections.abc import Iterator

from medvlm.data_recipes.asking import YES_NO, ask
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.own.draft import Workshop
from medvlm.data_recipes.own.identity import Owner
from medvlm.data_recipes.own.rows import SourceRow
from medvlm.data_recipes.own.settings import KEYS_OF_VISUALS, Ask, question_kind
from medvlm.data_recipes.own.visuals import filled_template, written_text
from medvlm.data_recipes.sample import QuestionKind, Sample, VisualRef
from medvlm.data_recipes.tables import ABSENT, Row


def samples(source: SourceRow, workshop: Workshop) -> Iterator[Sample]:
    """One sample for each question that the row answers.

    Raises:
        BadSample: an answer that must be there is empty, no question is answered, an answer outside the choices, ...
    """
    answered = answers(source.row, workshop.recipe.ask)
    refs = tuple(workshop.visuals.named(source.row))
    keys = workshop.recipe.fields.visuals or tuple(key for key in KEYS_OF_VISUALS if key in source.row.values)
    if keys and not refs:
        raise BadSample(
            f"no visual is named ({', '.join(keys)})", where=source.row.where, mend="fill it in or drop the row"
        )
    yield from asking(source, answered, refs, workshop.owners.of(source, refs), workshop)


def asking(
    source: SourceRow,
    answered: list[tuple[int, Ask, str]],
    refs: tuple[VisualRef, ...],
    owner: Owner,
    workshop: Workshop,
) -> Iterator[Sample]:
    """The questions of a row about ``refs``, one sample each."""
    row, recipe = source.row, workshop.recipe
    for number, one, answer in answered:
        kind, choices, said = asked(row, one, answer)
        yield ask(
            sample_id=f"{recipe.name}/{source.key}" + (f"/{number}" if len(recipe.ask) > 1 else ""),
            patient_id=owner.patient_id,
            study_id=owner.study_id,
            source=recipe.name,
            licence=workshop.filled.licence,
            split=owner.split,
            visuals=refs,
            prompt=filled_template(one.prompt, row),
            answers=[said],
            kind=kind,
            choices=choices,
            topic=one.topic,
            where=row.where,
            metadata=workshop.metadata(source, refs),
        )


def answers(row: Row, questions: tuple[Ask, ...]) -> list[tuple[int, Ask, str]]:
    """(number, question, answer) of the questions that the row answers.

    Raises:
        BadSample: an answer that must be there is empty, or there is none at all.
    """
    found = list(_answers(row, questions))
    if not found:
        names = ", ".join(repr(one.answer) for one in questions)
        raise BadSample(f"{names}: all are empty", where=row.where, mend="fill in one of them or drop the row")
    return found


def _answers(row: Row, questions: tuple[Ask, ...]) -> Iterator[tuple[int, Ask, str]]:
    for number, one in enumerate(questions, start=1):
        answer = written_text(row, one.answer)
        if one.optional and (not answer or answer.lower() in ABSENT):
            continue
        if not answer:
            raise BadSample(
                f"the answer ({one.answer!r}) is empty",
                where=row.where,
                mend="fill it in, drop the row, or write optional: true for this question in the recipe",
            )
        yield number, one, answer


def asked(row: Row, one: Ask, answer: str) -> tuple[QuestionKind, tuple[str, ...], str]:
    """(kind, choices, answer) of a question about this row.

    Raises:
        BadSample: the answer is not among ``values`` or among the choices.
    """
    if one.values:
        if answer not in one.values:
            raise BadSample(
                f"{one.answer!r} is {answer!r}, which is not among the values of the recipe",
                where=row.where,
                mend=f"use one of {', '.join(one.values)}, or add it to values in the recipe",
            )
        answer = one.values[answer]
    kind = question_kind(one.kind, answer)
    if kind == "closed" and one.kind == "vqa":
        return kind, YES_NO, answer.strip().strip(".").lower()
    choices = tuple(filled_template(f"{{{name}}}", row) for name in one.choice_columns) or one.choices
    if kind == "choice":
        letters = tuple(chr(ord("A") + place) for place in range(len(choices)))
        if answer not in letters and choices.count(answer) == 1:
            answer = letters[choices.index(answer)]
    return kind, choices if kind in ("closed", "choice") else (), answer
