"""The 14 labels of CheXpert of a report against those of the reference: F1, invented findings, flipped negations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from medvlm.data_recipes.sample import QuestionKind
from medvlm.eval.intervals import micro_f1
from medvlm.eval.metric import Answered, Counts, Marks, Metric, Scorer, each
from medvlm.eval.rows import Row
from medvlm.eval.scorers.chexpert_labels import FIVE, LABELS, NO_FINDING, present_in, reference_states, states_of
from medvlm.eval.scorers.finding_terms import FINDINGS

_REPORT: tuple[QuestionKind, ...] = ("report",)


def _score(answers: Sequence[Answered]) -> list[Marks | None]:
    rows: list[Marks | None] = []
    for one in answers:
        written, reference = states_of(one.value or ""), reference_states(one.question)
        flags = []
        if set(reference[: len(FINDINGS)]) == {"."}:
            flags.append("the reference states none of the findings")
        if set(written[: len(FINDINGS)]) == {"."}:
            flags.append("the answer states none of the findings")
        rows.append({"chexpert": {"written": written, "reference": reference}, "flags": flags})
    return rows


def _present(row: Row, *, doubt: bool) -> tuple[frozenset[str], frozenset[str]]:
    states = row["chexpert"]
    return present_in(states["written"], doubt=doubt), present_in(states["reference"], doubt=doubt)


def cells(labels: Sequence[str], *, doubt: bool) -> Counts:
    """Counts of each of ``labels``: hits of all, then what was invented of each, then what was missed of each."""

    def count(row: Row) -> list[float]:
        written, reference = _present(row, doubt=doubt)
        return [
            float(value)
            for holds in (
                lambda name: name in written and name in reference,
                lambda name: name in written and name not in reference,
                lambda name: name not in written and name in reference,
            )
            for value in map(holds, labels)
        ]

    return each(count)


def micro(sums: np.ndarray) -> np.ndarray:
    """sums (B, 3 C) of hits, invented and missed of C labels -> (B,) F1 of all cells together."""
    return micro_f1(sums.reshape(len(sums), 3, -1).sum(axis=2))


def macro(sums: np.ndarray) -> np.ndarray:
    """sums (B, 3 C) -> (B,) mean F1 of the labels that the references have; NaN where they have none.

    A label without a positive reference has no F1 worth the name (scikit-learn makes it 0 or 1, as told): it is left
    out, counted by ``classes`` and named by its own row of the table, whose value is empty.
    """
    hits, invented, missed = np.moveaxis(sums.reshape(len(sums), 3, -1), 1, 0)
    known = hits + missed > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        f1 = np.where(known, 2 * hits / (2 * hits + invented + missed), 0.0)
        return np.where(known.any(axis=1), f1.sum(axis=1) / known.sum(axis=1), np.nan)


def classes(sums: np.ndarray) -> np.ndarray:
    """sums (B, 3 C) -> (B,) how many labels the references have."""
    hits, _, missed = np.moveaxis(sums.reshape(len(sums), 3, -1), 1, 0)
    return (hits + missed > 0).sum(axis=1).astype(float)


def f1_of_one(sums: np.ndarray) -> np.ndarray:
    """sums (B, 3) of one label -> its F1; NaN where the references do not have it."""
    return np.where(sums[:, 0] + sums[:, 2] > 0, micro_f1(sums), np.nan)


def _pooled(labels: Sequence[str], part: int) -> Counts:
    """(hits, hits + invented) for part 1, (hits, hits + missed) for part 2."""
    of_each = cells(labels, doubt=False)
    n = len(labels)

    def counts(rows: Sequence[Row]) -> list[list[float] | None]:
        found: list[list[float] | None] = []
        for one in of_each(rows):
            assert one is not None, "every report has cells"
            hits = sum(one[:n])
            found.append([hits, hits + sum(one[part * n : (part + 1) * n])])
        return found

    return counts


def _findings_of(states: str, wanted: str) -> set[str]:
    return {name for name, state in zip(FINDINGS, states, strict=False) if state in wanted}


def _invented(row: Row) -> tuple[set[str], set[str]]:
    """(invented, stated present) of the answer; what the reference leaves in doubt is not invented."""
    stated = _findings_of(row["chexpert"]["written"], "+")
    return stated - _findings_of(row["chexpert"]["reference"], "+?"), stated


def _chair_i(row: Row) -> list[float]:
    invented, stated = _invented(row)
    return [float(len(invented)), float(len(stated))]


def _chair_s(row: Row) -> list[float]:
    return [float(bool(_invented(row)[0])), 1.0]


def _flips(was: str, became: str) -> Callable[[Row], list[float]]:
    """[flipped, stated by both] of the findings that the reference states as ``was``."""

    def count(row: Row) -> list[float]:
        reference = _findings_of(row["chexpert"]["reference"], was)
        written = row["chexpert"]["written"]
        return [
            float(len(reference & _findings_of(written, became))),
            float(len(reference & _findings_of(written, "+-"))),
        ]

    return count


def _either_flip(row: Row) -> list[float]:
    to_present, to_absent = _flips("-", "+")(row), _flips("+", "-")(row)
    return [to_present[0] + to_absent[0], to_present[1] + to_absent[1]]


def _metric(name: str, title: str, counts: Counts, **rest: Any) -> Metric:
    return Metric(name=name, title=f"Reports: {title}", kinds=_REPORT, counts=counts, **rest)


def _family(name: str, title: str, labels: Sequence[str]) -> list[Metric]:
    found: list[Metric] = []
    for doubt, suffix, said in ((False, "", "doubt is absent"), (True, "_doubt_present", "doubt is present")):
        counts = cells(labels, doubt=doubt)
        found.append(_metric(f"{name}_micro_f1{suffix}", f"{title}, micro-F1, {said}", counts, value=micro))
        found.append(_metric(f"{name}_macro_f1{suffix}", f"{title}, macro-F1, {said}", counts, value=macro))
    return found


def _key(label: str) -> str:
    return label.lower().replace(" ", "_")


SCORER = Scorer(
    name="chexpert",
    tier="B",
    kinds=_REPORT,
    implementation="medvlm's rule labeller (docs/labeller.md) with the classes of CheXpert (Irvin et al. 2019); "
    "present against all else; macro over the classes that the references have; No Finding apart",
    score=_score,
    metrics=(
        *_family("chexpert_13", "CheXpert's 13 findings", FINDINGS),
        *_family("chexpert_5", "CheXpert's 5 findings", FIVE),
        *_family("chexpert_14", "CheXpert's 14 labels with No Finding", LABELS),
        _metric(
            "chexpert_classes", "findings in the macro-F1 of 13", cells(FINDINGS, doubt=False), value=classes,
            unit="classes", better="neither",
        ),
        _metric("chexpert_precision", "CheXpert's 13 findings, precision", _pooled(FINDINGS, 1)),
        _metric("chexpert_recall", "CheXpert's 13 findings, recall", _pooled(FINDINGS, 2)),
        *(
            _metric(f"f1_{_key(label)}", f"F1 of {label}", cells((label,), doubt=False), value=f1_of_one)
            for label in (*FINDINGS, NO_FINDING)
        ),
        _metric("chair_i", "invented findings, of those stated (read beside recall)", each(_chair_i), better="lower"),
        _metric(
            "chair_s", "reports with an invented finding (read beside recall)", each(_chair_s), share=True,
            better="lower",
        ),
        _metric(
            "negation_flips", "findings stated the other way round, of those that both state", each(_either_flip),
            better="lower",
        ),
        _metric("absent_called_present", "absent findings called present", each(_flips("-", "+")), better="lower"),
        _metric("present_called_absent", "present findings called absent", each(_flips("+", "-")), better="lower"),
    ),
    degenerate="An answer that states nothing invents nothing: chair_i and chair_s mean little without "
    "chexpert_recall. An F1 is empty where the references have no such finding. A text that names no finding counts as "
    "No Finding, blank text as nothing.",
)  # fmt: skip
