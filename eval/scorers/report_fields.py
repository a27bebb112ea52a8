"""Reports asked as a template: named fields, as lines "Name: value" or as a JSON object, and their values."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from medvlm.eval.metric import Answered, Marks, Metric, Scorer, each
from medvlm.eval.rows import Row
from medvlm.eval.scorers.labeller import label
from medvlm.eval.scorers.short_answer import normalise

PROSE = frozenset(
    {
        "findings", "impression", "conclusion", "indication", "history", "clinical history", "comparison", "technique",
        "examination", "exam", "recommendation", "clinical information",
    }
)  # fmt: skip
"""Section names of every report: two of them make no template."""
LEAST = 3
"""Fields that a text needs to be a template."""

_LINE = re.compile(r"^[\s\-*#]*([A-Za-z][\w /()'-]{0,60}?)[\s*]*:[ \t*]*(.*)$", re.MULTILINE)
_FENCE = re.compile(r"^\s*```(?:json)?\s*(.*?)\s*```\s*$", re.DOTALL)


def fields(text: str) -> dict[str, str] | None:
    """Name -> value of a template, names in lower case; None when the text is none.

    Of a JSON object nested names are joined by a dot. A name given twice keeps both values, joined by a blank.
    """
    found = _of_json(text)
    if found is None:
        found = {}
        for name, value in _LINE.findall(text):
            key = " ".join(name.lower().split())
            found[key] = f"{found[key]} {value.strip()}" if key in found else value.strip()
    return found if len(found.keys() - PROSE) >= LEAST else None


def _of_json(text: str) -> dict[str, str] | None:
    fenced = _FENCE.match(text)
    try:
        read = json.loads(fenced[1] if fenced else text)
    except json.JSONDecodeError:
        return None  # not JSON: it may be lines
    return _flat(read, "") if isinstance(read, dict) else None


def _flat(node: object, name: str) -> dict[str, str]:
    if isinstance(node, dict):
        return {
            key: value
            for part, child in node.items()
            for key, value in _flat(child, f"{name}.{part}".strip(".").lower()).items()
        }
    if isinstance(node, list):
        return {name: ", ".join(sorted(map(str, node)))}
    return {name: "" if node is None else str(node)}


def _same(written: str, reference: str) -> bool:
    return normalise(written) == normalise(reference)


def _agree(written: str, reference: str) -> bool:
    """The same words, or the same findings in other words."""
    return _same(written, reference) or (bool(label(reference)) and label(written) == label(reference))


def _score(answers: Sequence[Answered]) -> list[Marks | None]:
    rows: list[Marks | None] = []
    for one in answers:
        reference = fields(one.question.answers[0])
        if reference is None:
            rows.append(None)
            continue
        written = fields(one.value or "")
        said = written or {}
        marks = {
            "asked": len(reference),
            "there": sum(name in said for name in reference),
            "same": sum(name in said and _same(said[name], value) for name, value in reference.items()),
            "agree": sum(name in said and _agree(said[name], value) for name, value in reference.items()),
            "others": len(said.keys() - reference.keys()),
            "given": len(said),
        }
        rows.append({"fields": marks, "flags": [] if written is not None else ["the answer is no template"]})
    return rows


def _metric(name: str, title: str, part: str, whole: str, better: str = "higher") -> Metric:
    def count(row: Row) -> list[float] | None:
        found = row.get("fields")
        return None if found is None else [float(found[part]), float(found[whole])]

    return Metric(
        name=name,
        title=f"Templates: {title}",
        kinds=("report",),
        counts=each(count),
        better="higher" if better == "higher" else "lower",
    )


SCORER = Scorer(
    name="report_fields",
    tier="B",
    kinds=("report",),
    implementation=f"medvlm: of references with at least {LEAST} named fields (lines 'Name: value', or a JSON object); "
    "values without case, punctuation and articles; a missing field is wrong",
    score=_score,
    metrics=(
        _metric("field_accuracy", "fields with the value of the reference", "same", "asked"),
        _metric("field_agreement", "fields with its value, or its findings in other words", "agree", "asked"),
        _metric("field_present", "fields that are there", "there", "asked"),
        _metric("field_invented", "fields that were not asked for", "others", "given", "lower"),
    ),
    degenerate="A template of which most fields are normal is mostly right when all are called normal.",
)
