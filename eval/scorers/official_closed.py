"""Accuracy over the questions that the authors of a benchmark call closed, whatever the form of their answers.

VQA-RAD and SLAKE flag closed questions, and most published "closed accuracies" are over that flag: 272 of 451 in
VQA-RAD, of which 251 are answered by yes or no. The others are asked as what they are: as a choice among the
alternatives that the question names, or openly where it names none. Here they count together again: a closed or choice
question by the extracted choice, an open one by exact match.
"""

from __future__ import annotations

from collections.abc import Sequence

from medvlm.eval.metric import Answered, Marks, Metric, Scorer, mean_of
from medvlm.eval.scorers.choice import is_correct
from medvlm.eval.scorers.short_answer import exact_match

FLAG = "official_closed"
"""The key of ``Sample.metadata`` that repeats the authors' flag, true or false; absent where they have none."""


def _score(answers: Sequence[Answered]) -> list[Marks | None]:
    return [_mark(one) if one.item.sample.metadata.get(FLAG) is True else None for one in answers]


def _mark(one: Answered) -> Marks:
    if one.question.kind == "open":
        return {"official_closed_correct": exact_match(one.value or "", one.question.answers)}
    return {"official_closed_correct": float(is_correct(one.question, one.value, one.prompt))}


SCORERS = (
    Scorer(
        name="official_closed",
        tier="A",
        kinds=("closed", "choice", "open"),
        implementation="medvlm: the questions that the authors flag as closed; extracted choice, or exact match where "
        "the answer is no choice",
        score=_score,
        metrics=(
            Metric(
                name="official_closed_accuracy", title="Closed by the authors' flag: accuracy",
                kinds=("closed", "choice", "open"), counts=mean_of("official_closed_correct"), share=True,
            ),
        ),
        degenerate="questions without the flag are left out and counted as unscored",
    ),
)  # fmt: skip
