"""Accuracy of closed and multiple-choice answers, and of the best answer that never looks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from medvlm.data_recipes.sample import Question
from medvlm.eval.extract import choice_index, options
from medvlm.eval.metric import Answered, Marks, Metric, Scorer, each
from medvlm.eval.rows import Row

MINIMUM_GROUP = 10
"""Fewest rows from which the most frequent answer of a set of choices may be learnt."""


def accepted(question: Question, prompt: str = "") -> set[str]:
    """The accepted answers of a closed or choice question, spelt as in ``options``.

    Raises:
        ValueError: an answer is none of the choices.
    """
    texts = options(question, prompt)
    found: set[str] = set()
    for answer in question.answers:
        place = choice_index(question, answer, prompt)
        if place is None:
            raise ValueError(f"answer {answer!r} is none of {list(question.choices)}; write a choice or its letter")
        found.add(texts[place])
    return found


def is_correct(question: Question, value: str | None, prompt: str = "") -> bool:
    """Whether the extracted ``value`` is an accepted answer; what could not be read is wrong."""
    return value is not None and value in accepted(question, prompt)


def majority_hits(rows: Sequence[tuple[str, tuple[str, ...], str]]) -> list[bool]:
    """Which rows the best constant answers get right: what the words of the questions alone are worth.

    Rows are grouped by topic and by their choices as a set (shuffled options are the same choices), and each group
    answers its most frequent reference. Choices seen in fewer than MINIMUM_GROUP rows, where the most frequent answer
    would be the answer itself, are pooled by their number and answer the best constant PLACE ("always B").

    Args:
        rows: (topic, choices in the order shown, reference).
    """
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for index, (topic, choices, _) in enumerate(rows):
        groups[(topic, frozenset(choices))].append(index)
    by_place: dict[int, list[int]] = defaultdict(list)
    hits = [False] * len(rows)
    for members in groups.values():
        if len(members) < MINIMUM_GROUP:
            for index in members:
                by_place[len(rows[index][1])].append(index)
            continue
        best = _most_frequent([rows[index][2] for index in members])
        for index in members:
            hits[index] = rows[index][2] == best
    for members in by_place.values():
        places = [rows[index][1].index(rows[index][2]) for index in members]
        best_place = _most_frequent(places)
        for index, place in zip(members, places, strict=True):
            hits[index] = place == best_place
    return hits


def _most_frequent(values: Sequence) -> object:
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], str(value)))


def _score(answers: Sequence[Answered]) -> list[Marks | None]:
    found: list[Marks | None] = []
    for one in answers:
        right = accepted(one.question, one.prompt)
        found.append(
            {
                "correct": one.value is not None and one.value in right,
                "choices": list(options(one.question, one.prompt)),
                "reference": sorted(right)[0],
            }
        )
    return found


def _majority(rows: Sequence[Row]) -> list[list[float] | None]:
    """Hits of the best constants, learnt within each dimension and then pooled."""
    hits = dict.fromkeys(range(len(rows)), False)
    members: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        members[row["dimension"]].append(index)
    for places in members.values():
        asked = [(rows[i]["topic"], tuple(rows[i]["choices"]), rows[i]["reference"]) for i in places]
        hits |= dict(zip(places, majority_hits(asked), strict=True))
    return [[float(hits[index]), 1.0] for index in range(len(rows))]


def _right(row: Row) -> list[float]:
    return [float(row["correct"]), 1.0]


def _in_every_order(rows: Sequence[Row]) -> list[list[float] | None]:
    """Shares of a sample's one point: 1 when it was right under every rotation of its choices, 0 otherwise.

    None of a sample that some rotation has no answer of: nobody knows whether that one would have been right.
    """
    of_sample: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        if row["condition"] == "choices_shuffled":
            of_sample[row["sample_id"]].append(row["correct"])
    return [
        [all(right) / len(right), 1 / len(right)]
        if len(right := of_sample.get(row["sample_id"], [])) == len(row["choices"]) - 1 and right
        else None
        for row in rows
    ]


SCORERS = (
    Scorer(
        name="choice",
        tier="A",
        kinds=("closed", "choice"),
        implementation="medvlm: the extracted choice is an accepted one; what could not be read is wrong",
        score=_score,
        metrics=(
            Metric(
                name="closed_accuracy",
                title="Closed questions: accuracy",
                kinds=("closed",),
                counts=each(_right),
                share=True,
            ),
            Metric(
                name="majority_accuracy",
                title="Closed questions: best constant",
                kinds=("closed",),
                counts=_majority,
                share=True,
                better="neither",
            ),
            Metric(
                name="choice_accuracy",
                title="Multiple choice: accuracy",
                kinds=("choice",),
                counts=each(_right),
                share=True,
            ),
            Metric(
                name="choice_accuracy_in_every_order",
                title="Multiple choice: right in every other order of the choices",
                kinds=("choice",),
                counts=_in_every_order,
            ),
            Metric(
                name="choice_majority_accuracy",
                title="Multiple choice: best constant",
                kinds=("choice",),
                counts=_majority,
                share=True,
                better="neither",
            ),
        ),
    ),
)
