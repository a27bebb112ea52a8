"""How answers are spread over splits: a test split that is answered otherwise than training was."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2_contingency

from medvlm.data_recipes.checks.catalogue import Catalogue, Seen
from medvlm.data_recipes.checks.finding import Finding

_FEWEST = 50
"""Answers that both splits must have before their spread is compared."""

_DISTANCE, _CHANCE = 0.2, 1e-4
"""Total variation distance from which a shift is told, and the largest probability that chance made it."""

_KINDS = 200
"""Different answers of a group that are counted by name; a group with more is open and has no spread."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Short answers of one source and topic.

    Attributes:
        counts: split -> answer -> how often, of the most frequent ones.
        totals: split -> short answers in all.
    """

    source: str
    topic: str
    counts: dict[str, dict[str, int]]
    totals: dict[str, int]


class Answers:
    """Counts the short answers (at most three words) of each source, topic and split."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
        self._first: dict[tuple[str, str], int] = {}
        self._open: set[tuple[str, str]] = set()

    def see(self, row: Seen) -> None:
        if row.registered or row.sample.preference is not None:
            return
        asked = next((turn.text for turn in reversed(row.sample.turns) if turn.role == "user"), "")
        group = (row.sample.source, topic_of(row, asked))
        answer = " ".join(row.answers()[0].lower().strip(" .").split())
        if group in self._open or not answer or len(answer.split()) > 3:
            return
        self._first.setdefault(group, row.number)
        counts = self._counts[group][row.part]
        counts[answer] += 1
        if len(counts) > _KINDS:
            self._open.add(group)
            del self._counts[group]

    def table(self) -> list[Spread]:
        """Groups of at least 20 answers, the largest first."""
        found = [
            Spread(
                source=source,
                topic=topic,
                counts={split: dict(c.most_common(8)) for split, c in splits.items()},
                totals={split: c.total() for split, c in splits.items()},
            )
            for (source, topic), splits in self._counts.items()
            if sum(c.total() for c in splits.values()) >= 20
        ]
        return sorted(found, key=lambda spread: -sum(spread.totals.values()))

    def findings(self, catalogue: Catalogue) -> Iterator[Finding]:
        for group, splits in sorted(self._counts.items()):
            for split in ("validation", "test"):
                shift = _shift(splits.get("train", Counter()), splits.get(split, Counter()))
                if shift is not None:
                    distance, answer, before, after = shift
                    yield Finding(
                        check="answers",
                        severity="warning",
                        where=catalogue.where(self._first[group]),
                        reason=f"{group[0]}, {group[1]}: answers differ between train and {split} (total variation "
                        f"{distance:.2f}); most: {answer!r}, {100 * before:.0f} % and {100 * after:.0f} %",
                        mend="split at random by patient, or say in the report that the test is of another population",
                        leave_out=False,
                    )


MIXED = "other"
"""The topic of questions of which nothing is known: their answers may be of any kind."""

_FORM = re.compile(r"Answer ([^.]*)\.\s*$")


def topic_of(row: Seen, question: str) -> str:
    """What tables group by: the topic that the row states, else the form of answer that the question asks for
    ("answer yes or no"), else MIXED."""
    asked = row.sample.question
    topic = asked.topic if asked is not None else str(row.sample.metadata.get("topic", MIXED))
    form = _FORM.search(question) if topic == MIXED else None
    return f"answer {form[1]}" if form else topic


def _shift(one: Counter[str], other: Counter[str]) -> tuple[float, str, float, float] | None:
    """(distance, the answer that differs most, its two shares); None when alike or too few to tell."""
    if min(one.total(), other.total()) < _FEWEST:
        return None
    kinds = sorted(one.keys() | other.keys())
    table = np.array([[c[kind] for kind in kinds] for c in (one, other)], float)
    shares = table / table.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    if len(kinds) < 2 or distance < _DISTANCE or chi2_contingency(table).pvalue > _CHANCE:
        return None
    most = int(np.abs(shares[0] - shares[1]).argmax())
    return distance, kinds[most], float(shares[0, most]), float(shares[1, most])
