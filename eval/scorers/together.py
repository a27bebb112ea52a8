"""Accuracy over questions of several forms together, as visual question answering is published.

VQA-Med counts closed and open questions in one strict accuracy. VQA-RAD and SLAKE flag closed questions, and most
published "closed accuracies" are over that flag: 272 of 451 in VQA-RAD, of which 251 are answered by yes or no; the
others are asked as what they are, as a choice among the alternatives that the question names, or openly where it names
none. Here they count together again: a closed or choice question by the extracted choice, an open one by exact match.
"""

from __future__ import annotations

from collections.abc import Sequence

from medvlm.eval.metric import Answered, Marks, Metric, Scorer, mean_of
from medvlm.eval.scorers.choice import is_correct
from medvlm.eval.scorers.short_answer import exact_match

FLAG = "official_closed"
"""The key of ``Sample.metadata`` that repeats the authors' flag, true or false; absent where they have none."""


def _right(one: Answered) -> float:
    if one.question.kind == "open":
        return exact_match(one.value or "", one.question.answers)
    return float(is_correct(one.question, one.value, one.prompt))


def _score(answers: Sequence[Answered]) -> list[Marks | None]:
    kinds = {one.question.kind for one in answers}
    mixed = "open" in kinds and len(kinds) > 1  # of one form alone, its own accuracy says the same
    found: list[Marks | None] = []
    for one in answers:
        marks: Marks = {"strictly_correct": _right(one)} if mixed else {}
        if one.item.sample.metadata.get(FLAG) is True:
            marks["official_closed_correct"] = _right(one)
        found.append(marks or None)
    return found


SCORERS = (
    Scorer(
        name="together",
        tier="A",
        kinds=("closed", "choice", "open"),
        implementation="medvlm: the extracted choice, or exact match where the answer is no choice",
        score=_score,
        metrics=(
            Metric(
                name="strict_accuracy", title="All questions: strict accuracy", kinds=("closed", "choice", "open"),
                counts=mean_of("strictly_correct"), share=True,
            ),
            Metric(
                name="official_closed_accuracy", title="Closed by the authors' flag: accuracy",
                kinds=("closed", "choice", "open"), counts=mean_of("official_closed_correct"), share=True,
            ),
        ),
        degenerate="questions without the authors' flag are left out of official_closed_accuracy, counted as unscored",
    ),
)  # fmt: skip
