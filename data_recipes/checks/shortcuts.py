"""Questions that give their answer away: what a classifier that reads only the text gets right."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from medvlm.data_recipes.checks.answers import MIXED, topic_of
from medvlm.data_recipes.checks.catalogue import Catalogue, Seen, digest
from medvlm.data_recipes.checks.finding import Finding

FEWEST_ROWS, FEWEST_PATIENTS, MOST_ROWS = 100, 20, 5000
"""Below the first two nothing is concluded; of larger groups the rows with the smallest hashes are kept."""

_FOLDS, _DRAWS, _LIFT = 5, 1000, 0.05
"""A warning needs a lift whose 95 % interval lies above this."""

_FEWEST_OF_ANSWER = 5


@dataclass(frozen=True, kw_only=True)
class Shortcut:
    """What the text alone is worth in one group.

    Attributes:
        accuracy: of the text-only classifier, cross-validated by patient.
        majority: of the most frequent answer, learnt on the same folds.
        low, high: 95 % interval of the difference, by bootstrap over patients.
    """

    source: str
    topic: str
    rows: int
    patients: int
    answers: int
    accuracy: float
    majority: float
    low: float
    high: float

    @property
    def lift(self) -> float:
        return self.accuracy - self.majority


class Shortcuts:
    """Keeps questions and short answers per source, split and topic, at most MOST_ROWS of each."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], dict[int, tuple[str, str, int]]] = defaultdict(dict)
        self._limit: dict[tuple[str, str], int] = {}
        self._first: dict[tuple[str, str], int] = {}
        self._found: list[Shortcut] | None = None

    def see(self, row: Seen) -> None:
        if row.registered or row.sample.preference is not None:
            return
        turns = row.sample.turns
        pairs = [(a.text, b.text) for a, b in pairwise(turns) if b.role == "assistant"]
        if row.sample.question is not None:
            pairs.append((turns[-1].text, row.sample.question.answers[0]))
        for number, (question, answer) in enumerate(pairs):
            group = (row.sample.source, topic_of(row, question))
            answer = " ".join(answer.lower().strip(" .").split())
            place = digest(f"{row.sample.sample_id} {number}")
            if len(answer.split()) > 3 or place > self._limit.get(group, 1 << 64):
                continue
            self._first.setdefault(group, row.number)
            self._kept[group][place] = (question, answer, digest(row.sample.patient_id))
            if len(self._kept[group]) > 2 * MOST_ROWS:
                self._shrink(group)

    def _shrink(self, group: tuple[str, str]) -> None:
        kept = sorted(self._kept[group])[:MOST_ROWS]
        self._limit[group] = kept[-1]
        self._kept[group] = {place: self._kept[group][place] for place in kept}

    def table(self) -> list[Shortcut]:
        """Every group that is large enough, the largest lift first."""
        if self._found is None:
            found = [measure(*group, list(rows.values())[:MOST_ROWS]) for group, rows in sorted(self._kept.items())]
            self._found = sorted((one for one in found if one is not None), key=lambda one: -one.lift)
        return self._found

    def findings(self, catalogue: Catalogue) -> Iterator[Finding]:
        for one in self.table():
            if one.low > _LIFT and one.topic != MIXED:  # there the question tells what kind of answer is wanted
                yield Finding(
                    check="shortcuts",
                    severity="warning",
                    where=catalogue.where(self._first[one.source, one.topic]),
                    reason=f"{one.source}, {one.topic}: the question alone tells {100 * one.accuracy:.0f} % of the "
                    f"answers, the most frequent answer {100 * one.majority:.0f} % (difference "
                    f"{100 * one.low:.0f} to {100 * one.high:.0f} points)",
                    mend="balance the answers of each question, or report accuracy beside a model without the image",
                    leave_out=False,
                )


def measure(source: str, topic: str, rows: list[tuple[str, str, int]]) -> Shortcut | None:
    """The Shortcut of (question, answer, patient) rows; None when they are too few, or have one answer."""
    often = Counter(answer for _, answer, _ in rows)
    rows = [row for row in rows if often[row[1]] >= _FEWEST_OF_ANSWER]
    patients = np.array([patient for _, _, patient in rows], np.uint64)
    answers = np.array([answer for _, answer, _ in rows])
    if len(rows) < FEWEST_ROWS or len(np.unique(patients)) < FEWEST_PATIENTS or len(set(answers)) < 2:
        return None
    words = HashingVectorizer(n_features=1 << 16, ngram_range=(1, 2)).transform(question for question, _, _ in rows)
    words = words[:, np.unique(words.indices)]  # of 65,536 columns a group fills few, and the classifier pays for all
    right, common = np.zeros(len(rows)), np.zeros(len(rows))
    for learn, ask in GroupKFold(_FOLDS).split(words, answers, patients):
        guess = Counter(answers[learn]).most_common(1)[0][0]
        common[ask] = answers[ask] == guess
        if len(set(answers[learn])) < 2:
            right[ask] = common[ask]
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a little short of the optimum is good enough here
            model = LogisticRegression(C=10.0, max_iter=100, tol=1e-3).fit(words[learn], answers[learn])
        right[ask] = model.predict(words[ask]) == answers[ask]
    low, high = _interval(right - common, patients)
    return Shortcut(
        source=source, topic=topic, rows=len(rows), patients=len(np.unique(patients)), answers=len(set(answers)),
        accuracy=float(right.mean()), majority=float(common.mean()), low=low, high=high,
    )  # fmt: skip


def _interval(gain: np.ndarray, patients: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean gain: percentiles of a bootstrap over patients."""
    _, of = np.unique(patients, return_inverse=True)
    sums, counts = np.bincount(of, gain), np.bincount(of)
    rng = np.random.default_rng(0)
    means = []
    for _ in range(_DRAWS):
        drawn = rng.integers(len(sums), size=len(sums))
        means.append(sums[drawn].sum() / counts[drawn].sum())
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))
