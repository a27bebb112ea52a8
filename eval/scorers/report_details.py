"""Side, severity, numbers and changes of a report's findings against those of the reference text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medvlm.data_recipes.sample import QuestionKind
from medvlm.eval.intervals import micro_f1
from medvlm.eval.metric import Answered, Counts, Marks, Metric, Scorer, each
from medvlm.eval.rows import Row
from medvlm.eval.scorers.change_words import changes
from medvlm.eval.scorers.labeller import statements
from medvlm.eval.scorers.measurements import matched, measurements
from medvlm.eval.scorers.severity import grades

_REPORT: tuple[QuestionKind, ...] = ("report",)


def sides_of(report: str) -> dict[str, frozenset[str]]:
    """Finding (of CheXpert, else its kind) that is present -> left, right or both; empty where no side is said."""
    found: dict[str, frozenset[str]] = {}
    for one in statements(report):
        if one.present is True:
            sides = {side for said in one.sides for side in (("left", "right") if said == "bilateral" else (said,))}
            name = one.finding or one.kind
            found[name] = found.get(name, frozenset()) | sides
    return found


def _score_sides(answers: Sequence[Answered]) -> list[Marks | None]:
    rows: list[Marks | None] = []
    for one in answers:
        written, reference = sides_of(one.value or ""), sides_of(one.question.answers[0])
        asked = [name for name, sides in reference.items() if sides and name in written]
        pairs = [(written[name], reference[name]) for name in asked]
        marks = {
            "asked": len(pairs),
            "right": sum(said == true for said, true in pairs),
            "unsaid": sum(not said for said, _ in pairs),
            "flipped": sum(bool(said) and not said & true for said, true in pairs),
        }
        rows.append(
            {"sides": marks, "flags": [] if pairs else ["no finding of both texts has a side in the reference"]}
        )
    return rows


def _score_severity(answers: Sequence[Answered]) -> list[Marks | None]:
    rows: list[Marks | None] = []
    for one in answers:
        written, reference = grades(one.value or ""), grades(one.question.answers[0])
        pairs = [(written[name], grade) for name, grade in reference.items() if grade is not None and name in written]
        both = [(said, true) for said, true in pairs if said is not None]
        marks = {
            "asked": len(pairs),
            "right": sum(said == true for said, true in both),
            "graded": len(both),
            "apart": sum(abs(said - true) for said, true in both),
        }
        rows.append(
            {"severity": marks, "flags": [] if pairs else ["no finding of both texts is graded in the reference"]}
        )
    return rows


def _score_numbers(answers: Sequence[Answered]) -> list[Marks | None]:
    rows: list[Marks | None] = []
    for one in answers:
        written, reference = measurements(one.value or ""), measurements(one.question.answers[0])
        right = matched(written, reference)
        marks = {"right": right, "invented": len(written) - right, "missed": len(reference) - right}
        none = not written and not reference
        rows.append({"numbers": marks, "flags": ["neither text has a measurement"] if none else []})
    return rows


def _score_changes(answers: Sequence[Answered]) -> list[Marks | None]:
    rows: list[Marks | None] = []
    for one in answers:
        written, reference = changes(one.value or ""), changes(one.question.answers[0])
        directed = {"improved", "worse"}
        said = {name: change for name, change in written if change in directed}
        true = {name: change for name, change in reference if change in directed}
        both = said.keys() & true.keys()
        marks = {
            "right": len(written & reference),
            "invented": len(written - reference),
            "missed": len(reference - written),
            "directed": len(both),
            "reversed": sum(said[name] != true[name] for name in both),
        }
        none = not written and not reference
        rows.append({"changes": marks, "flags": ["neither text states a change"] if none else []})
    return rows


def _of(key: str, *names: str) -> Counts:
    return each(lambda row: [float(row[key][name]) for name in names])


def _f1(key: str) -> Counts:
    """Hits, invented and missed; None where neither text has any, which would be right for nothing."""

    def count(row: Row) -> list[float] | None:
        found = [float(row[key][name]) for name in ("right", "invented", "missed")]
        return found if any(found) else None

    return each(count)


def _of_sum(key: str, other: str) -> Counts:
    return each(lambda row: [row[key]["right"], row[key]["right"] + row[key][other]])


def _metric(name: str, title: str, counts: Counts, **rest: Any) -> Metric:
    return Metric(name=name, title=f"Reports: {title}", kinds=_REPORT, counts=counts, **rest)


SCORERS = (
    Scorer(
        name="laterality",
        tier="B",
        kinds=_REPORT,
        implementation="medvlm's rule labeller: findings that both texts state present and whose side the reference "
        "says; bilateral is left and right; a side left unsaid is not right",
        score=_score_sides,
        metrics=(
            _metric("side_right", "side of the findings found", _of("sides", "right", "asked")),
            _metric("side_flipped", "findings on the other side", _of("sides", "flipped", "asked"), better="lower"),
            _metric("side_unsaid", "findings left without a side", _of("sides", "unsaid", "asked"), better="lower"),
        ),
        degenerate="About the findings that were found alone: an answer that finds little can have every side right.",
    ),
    Scorer(
        name="severity",
        tier="B",
        kinds=_REPORT,
        implementation="medvlm: grades 1 minimal or trace, 2 mild or small, 3 moderate, 4 severe or large, of findings "
        "that both texts state present and the reference grades; a grade left unsaid is not right",
        score=_score_severity,
        metrics=(
            _metric("severity_right", "severity of the findings found", _of("severity", "right", "asked")),
            _metric(
                "severity_apart", "severity, grades apart where both grade", _of("severity", "apart", "graded"),
                unit="grades", better="lower",
            ),
        ),
        degenerate="About the findings that were found alone.",
    ),
    Scorer(
        name="measurements",
        tier="B",
        kinds=_REPORT,
        implementation="medvlm: numbers with a unit (lengths in mm, volumes in ml, HU, %, degrees) and counts of "
        "findings, paired one to one within 10 % or 1 mm, 1 ml, 5 HU, 1 %, 1 degree; counts when equal; of the same "
        "finding where both name one; numbers of an earlier study only with each other",
        score=_score_numbers,
        metrics=(
            _metric("measurement_f1", "measurements, F1", _f1("numbers"), value=micro_f1),
            _metric("measurement_precision", "measurements written that are right", _of_sum("numbers", "invented")),
            _metric("measurement_recall", "measurements of the reference that are right", _of_sum("numbers", "missed")),
        ),
        degenerate="Reports where neither text has a number are left out and counted.",
    ),
    Scorer(
        name="changes",
        tier="B",
        kinds=_REPORT,
        implementation="medvlm: improved, worse, stable, new and resolved, each with its finding or with the whole "
        "study; a set of pairs of each text, micro-F1 over reports",
        score=_score_changes,
        metrics=(
            _metric("change_f1", "changes over time, F1", _f1("changes"), value=micro_f1),
            _metric("change_precision", "changes written that the reference has", _of_sum("changes", "invented")),
            _metric("change_recall", "changes of the reference that are written", _of_sum("changes", "missed")),
            _metric(
                "change_reversed", "better for worse, or worse for better", _of("changes", "reversed", "directed"),
                better="lower",
            ),
        ),
        degenerate="Reports where neither text states a change are left out and counted: they are no perfect score.",
    ),
)  # fmt: skip
