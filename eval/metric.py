"""What a mark is: a Scorer marks answers one by one, its Metrics sum the marks up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from medvlm.data_recipes.sample import Question, QuestionKind
from medvlm.eval.intervals import RESAMPLES, Statistic, ratio
from medvlm.eval.plan import Item
from medvlm.eval.rows import Row

Tier = Literal["A", "B", "C", "D"]
TIERS: Mapping[Tier, str] = {
    "A": "exact and lexical",
    "B": "clinical, by rules",
    "C": "learned models",
    "D": "judged by a model",
}
"""Shown apart: what one tier says cannot stand for another."""

Better = Literal["higher", "lower", "neither"]
Counts = Callable[[Sequence[Row]], "list[list[float] | None]"]
"""Rows of scores.jsonl -> for each its summable counts, or None where the mark does not apply to it."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One answer to be marked.

    Attributes:
        question: as asked; under a control it need not be that of ``item``.
        prompt: its text as asked.
        written: all that the model wrote.
        value: what extraction read, None when nothing could be read; of an open answer or a report, its text without
            thinking and tags.
    """

    item: Item
    question: Question
    prompt: str
    condition: str
    written: str
    value: str | None


Marks = dict[str, Any]
"""What one scorer says of one answer: keys of its own for a row of scores.jsonl, of plain JSON types. The key "flags"
(a list of text) says which degenerate case it met; flags of all scorers are put together and counted."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number over many answers.

    Attributes:
        name: in metrics.json; unique.
        title: for people.
        kinds: of questions that it is about.
        counts: of each row.
        value: of the sums of the counts, (B, K) -> (B,).
        share: whether the counts are (hit, 1), so that Wilson's interval can hold.
        unit: "share" (0 to 1, shown as percent), or what the number counts: mm, words, points, ...
        better: which way is better.
        resamples: of the bootstrap.
    """

    name: str
    title: str
    kinds: tuple[QuestionKind, ...]
    counts: Counts
    value: Statistic = ratio
    share: bool = False
    unit: str = "share"
    better: Better = "higher"
    resamples: int = RESAMPLES


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """How answers are marked.

    Attributes:
        name: unique.
        tier: which kind of evidence it is.
        kinds: of questions whose answers it marks.
        implementation: library, version and settings, or "medvlm" and what it follows; stands in metrics.json.
        score: marks for each of many answers, in order; None where it has nothing to say. It sees all answers of a
            condition at once, for marks that depend on the corpus (CIDEr).
        metrics: made of the marks.
        degenerate: the cases in which the number is known to mean little, for people; "" when there are none.
        added: not run by the score stage but by ``medvlm eval mark``, which keeps its marks in a file of their own.
    """

    name: str
    tier: Tier
    kinds: tuple[QuestionKind, ...]
    implementation: str
    score: Callable[[Sequence[Answered]], list[Marks | None]]
    metrics: tuple[Metric, ...]
    degenerate: str = ""
    added: bool = False


@dataclass(frozen=True)
class Each:
    """Counts of a row that depend on no other row: they are the same in every group that the row belongs to."""

    count: Callable[[Row], list[float] | None]

    def __call__(self, rows: Sequence[Row]) -> list[list[float] | None]:
        return [self.count(row) for row in rows]


def each(count: Callable[[Row], list[float] | None]) -> Counts:
    """Counts of a row that depend on no other row."""
    return Each(count)


def mean_of(key: str) -> Counts:
    """Counts whose ratio is the mean of ``row[key]``; rows without it, or with None, are left out and counted."""

    def count(row: Row) -> list[float] | None:
        value = row.get(key)
        return None if value is None else [float(value), 1.0]

    return each(count)
