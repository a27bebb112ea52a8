"""Findings of a written report against those of the reference: micro precision, recall and F1; negations kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from medvlm.data_recipes.sample import Question
from medvlm.eval.intervals import micro_f1
from medvlm.eval.metric import Answered, Counts, Marks, Metric, Scorer, each
from medvlm.eval.scorers.labeller import Finding, label
from medvlm.eval.scorers.lexicon import WITHOUT_SIDE, kind_named


@dataclass(frozen=True, kw_only=True)
class FindingCounts:
    """One report's counts; they add up over reports.

    Attributes:
        hits: positive (kind, side) in both.
        invented: positive in the answer only.
        missed: positive in the reference only.
        negations_kept: kinds that the reference states absent and the answer also states absent; silence is not
            enough.
        negations: kinds that the reference states absent.
        unknown_kinds: kinds of the reference that the lexicon cannot find in text; not scored.
        reference: where the reference findings come from: "manifest" or "labelled text".
    """

    hits: int
    invented: int
    missed: int
    negations_kept: int
    negations: int
    unknown_kinds: tuple[str, ...]
    reference: str


def positives(findings: Iterable[Finding]) -> set[tuple[str, str | None]]:
    """(kind, side) of what is present; bilateral is one on each side, and kinds without a side have none."""
    found: set[tuple[str, str | None]] = set()
    for finding in findings:
        if finding.present is not True:
            continue
        if finding.kind in WITHOUT_SIDE:
            found.add((finding.kind, None))
        elif finding.side == "bilateral":
            found |= {(finding.kind, "left"), (finding.kind, "right")}
        else:
            found.add((finding.kind, finding.side))
    sided = {kind for kind, side in found if side is not None}
    # "There is a mass. The mass is in the left lung.": the sideless mention is the same one.
    return {(kind, side) for kind, side in found if side is not None or kind not in sided}


def absent(findings: Iterable[Finding]) -> set[str]:
    """Kinds that are stated absent and nowhere stated present or in doubt."""
    findings = list(findings)
    return {f.kind for f in findings if f.present is False} - {f.kind for f in findings if f.present is not False}


def reference_findings(question: Question) -> tuple[frozenset[Finding], tuple[str, ...], str]:
    """(findings, kinds that the lexicon does not know, source): the manifest's list, or the labelled reference text."""
    if not question.findings:
        return label(question.answers[0]), (), "labelled text"
    found: set[Finding] = set()
    unknown: list[str] = []
    for row in question.findings:
        kind = kind_named(row["kind"])
        if kind is None:
            unknown.append(row["kind"])
            continue
        found.add(Finding(kind=kind, side=row.get("side"), present=row["present"]))
    return frozenset(found), tuple(unknown), "manifest"


def count_findings(question: Question, report: str) -> FindingCounts:
    """Compare the findings of ``report`` with the reference of ``question``.

    A positive finding is a hit only when kind AND side agree: an effusion on the wrong side is one invented
    and one missed finding. What either text leaves in doubt is no positive.
    """
    reference, unknown, source = reference_findings(question)
    written = label(report)
    expected, got = positives(reference), positives(written)
    denied = absent(reference)
    return FindingCounts(
        hits=len(expected & got),
        invented=len(got - expected),
        missed=len(expected - got),
        negations_kept=len(denied & absent(written)),
        negations=len(denied),
        unknown_kinds=unknown,
        reference=source,
    )


def _score(answers: Sequence[Answered]) -> list[Marks | None]:
    return [{"findings": asdict(count_findings(one.question, one.value or ""))} for one in answers]


def _counts(*keys: str) -> Counts:
    return each(lambda row: [float(row["findings"][key]) for key in keys])


def _of_total(hits: str, others: str) -> Counts:
    return each(lambda row: [row["findings"][hits], row["findings"][hits] + row["findings"][others]])


SCORERS = (
    Scorer(
        name="findings",
        tier="B",
        kinds=("report",),
        implementation="rule labeller of this package; a positive counts when kind and side agree; micro over reports",
        score=_score,
        metrics=(
            Metric(
                name="finding_f1",
                title="Reports: finding F1",
                kinds=("report",),
                counts=_counts("hits", "invented", "missed"),
                value=micro_f1,
            ),
            Metric(
                name="finding_precision",
                title="Reports: finding precision",
                kinds=("report",),
                counts=_of_total("hits", "invented"),
            ),
            Metric(
                name="finding_recall",
                title="Reports: finding recall",
                kinds=("report",),
                counts=_of_total("hits", "missed"),
            ),
            Metric(
                name="negation_accuracy",
                title="Reports: stated absences kept",
                kinds=("report",),
                counts=_counts("negations_kept", "negations"),
            ),
        ),
    ),
)
