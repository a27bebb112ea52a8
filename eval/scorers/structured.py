"""Sets of labels, spans of text and JSON objects (tier A)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from medvlm.data_recipes.asking import ENTITIES, NONE_OF_THEM, SEPARATOR
from medvlm.data_recipes.sample import QuestionKind
from medvlm.eval.intervals import Statistic, micro_f1, ratio
from medvlm.eval.metric import Answered, Counts, Marks, Metric, Scorer, each, mean_of
from medvlm.eval.rows import Row
from medvlm.eval.scorers.short_answer import exact_match, token_f1

# --- labels --------------------------------------------------------------------------------------------------


def label_set(value: str | None) -> frozenset[str]:
    """The labels of an extracted value: none for "none", and for an answer that could not be read."""
    return frozenset() if value is None or value == NONE_OF_THEM else frozenset(value.split(SEPARATOR))


def _labels(answers: Sequence[Answered]) -> list[Marks | None]:
    marks: list[Marks] = []
    for one in answers:
        expected = frozenset(one.question.answers) - {NONE_OF_THEM}
        given = label_set(one.value)
        shared, flags = len(expected & given), []
        if not expected and not given and one.value is not None:
            flags.append("no label holds and none was named: an F1 of 1 by convention")
        total = len(expected) + len(given)
        marks.append(
            {
                "labels_all": list(one.question.choices),
                "labels_expected": sorted(expected),
                "labels_given": sorted(given),
                "labels_exact": float(one.value is not None and expected == given),
                "labels_example_f1": 2 * shared / total if total else float(one.value is not None),
                "flags": flags,
            }
        )
    if marks:
        everywhere = {name for mark in marks for name in mark["labels_all"]}
        occurring = {name for mark in marks for name in mark["labels_expected"]}
        # Once for the corpus, with the first answer: the count of a flag is then the number of absent classes.
        marks[0]["flags"] += [f"class {name!r} holds in no reference" for name in sorted(everywhere - occurring)]
    return list(marks)


def _label_counts(row: Row) -> list[float] | None:
    if "labels_expected" not in row:
        return None
    expected, given = set(row["labels_expected"]), set(row["labels_given"])
    return [float(len(expected & given)), float(len(given - expected)), float(len(expected - given))]


def _per_class(rows: Sequence[Row]) -> list[list[float] | None]:
    """Hits, false positives and misses of each class that any row may name, one class after the other."""
    names = sorted({name for row in rows for name in row.get("labels_all", ())})
    counts: list[list[float] | None] = []
    for row in rows:
        if "labels_expected" not in row:
            counts.append(None)
            continue
        expected, given = set(row["labels_expected"]), set(row["labels_given"])
        counts.append(
            [
                float(held)
                for name in names
                for held in (
                    name in expected and name in given,
                    name in given and name not in expected,
                    name in expected and name not in given,
                )
            ]
        )
    return counts


def _macro(sums: np.ndarray, *, absent_counts: bool) -> np.ndarray:
    hits, invented, missed = (sums[:, place::3] for place in range(3))
    total = 2 * hits + invented + missed
    with np.errstate(divide="ignore", invalid="ignore"):
        f1 = np.where(total > 0, 2 * hits / total, 0.0)
    counted = np.ones_like(f1, dtype=bool) if absent_counts else (hits + missed) > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(counted.any(axis=1), (f1 * counted).sum(axis=1) / counted.sum(axis=1), np.nan)


def macro_f1(sums: np.ndarray) -> np.ndarray:
    """sums (B, 3 C) of hits, false positives, misses per class -> mean F1 over the classes that occur, (B,)."""
    return _macro(sums, absent_counts=False)


def macro_f1_zero(sums: np.ndarray) -> np.ndarray:
    """The same over all classes, where one that never occurs counts 0: scikit-learn's zero_division=0."""
    return _macro(sums, absent_counts=True)


# --- spans ---------------------------------------------------------------------------------------------------


def entity_set(text: str | None) -> frozenset[str]:
    """The entities of a text with one of them a line; case and runs of blanks do not count, everything else does.

    Articles and punctuation stay: without them "vitamin A" would be "vitamin" and "5-FU" would be "5FU".
    """
    if text is None or text.strip().lower() == NONE_OF_THEM:
        return frozenset()
    return frozenset(plain for line in text.splitlines() if (plain := " ".join(line.split()).casefold()))


def _entities(one: Answered) -> Marks:
    """Against the accepted list that the answer comes nearest to; what could not be read names nothing."""
    given = entity_set(one.value)
    best: tuple[float, list[float]] | None = None
    for answer in one.question.answers:
        expected = entity_set(answer)
        shared, total = len(expected & given), len(expected) + len(given)
        f1 = 2 * shared / total if total else float(one.value is not None)
        if best is None or f1 > best[0]:
            best = (f1, [float(shared), float(len(given) - shared), float(len(expected) - shared)])
    assert best is not None, "a question has an answer"
    empty = one.value is not None and not sum(best[1])
    return {
        "entity_counts": best[1],
        "entity_f1": best[0],
        "entity_exact": float(best[0] == 1.0),
        "flags": ["nothing to find and nothing was named: an F1 of 1 by convention"] if empty else [],
    }


def _entity_counts(row: Row) -> list[float] | None:
    return row.get("entity_counts")


def _spans(answers: Sequence[Answered]) -> list[Marks | None]:
    marks: list[Marks | None] = []
    for one in answers:
        if one.question.topic == ENTITIES:
            marks.append(_entities(one))
            continue
        written = one.value or ""
        marks.append(
            {
                "span_exact": exact_match(written, one.question.answers),
                "span_f1": token_f1(written, one.question.answers),
            }
        )
    return marks


# --- JSON ----------------------------------------------------------------------------------------------------

FIELDS: Mapping[str, str] = {"error": "JSON: field 'error'", "sentence": "JSON: field 'sentence'"}
"""Fields with a metric of their own: those of the tasks here. All others count in the pooled accuracy."""


def same_value(expected: Any, given: Any) -> bool:
    """Whether two JSON values say the same.

    Texts without regard to case and runs of blanks; a number written as text is that number, "yes" and "true" are true,
    "no" and "false" are false; lists as multisets; objects field by field, with the same fields.
    """
    if isinstance(expected, dict) or isinstance(given, dict):
        both = isinstance(expected, dict) and isinstance(given, dict) and expected.keys() == given.keys()
        return both and all(same_value(expected[key], given[key]) for key in expected)
    if isinstance(expected, list) or isinstance(given, list):
        both = isinstance(expected, list) and isinstance(given, list)
        return both and Counter(map(_canonical, expected)) == Counter(map(_canonical, given))
    return bool(_canonical(expected) == _canonical(given))


def _canonical(value: Any) -> str:
    if isinstance(value, dict | list):
        items = value if isinstance(value, list) else [f"{key}={_canonical(value[key])}" for key in sorted(value)]
        return repr(sorted(item if isinstance(item, str) else _canonical(item) for item in items))
    if value is None or isinstance(value, bool):
        return f"{value}"
    text = " ".join(str(value).split()).casefold()
    if text in ("yes", "true", "no", "false"):
        return f"{text in ('yes', 'true')}"
    try:
        return f"{float(text):.12g}"
    except ValueError:
        return f"text {text}"


def _objects(answers: Sequence[Answered]) -> list[Marks | None]:
    marks: list[Marks | None] = []
    for one in answers:
        expected = json.loads(one.question.answers[0])
        given = json.loads(one.value) if one.value is not None else {}
        right = {name: float(name in given and same_value(value, given[name])) for name, value in expected.items()}
        flags = [f"field {name!r} is missing" for name in expected if one.value is not None and name not in given]
        added = sorted(set(given) - set(expected))
        if added:
            flags.append("fields that were not asked for")
        marks.append(
            {
                "json_valid": float(one.value is not None),
                "json_fields": right,
                "json_exact": float(all(right.values()) and not added),
                "flags": flags,
            }
        )
    return marks


def _field_counts(row: Row) -> list[float] | None:
    fields = row.get("json_fields")
    return None if fields is None else [sum(fields.values()), float(len(fields))]


def _one_field(name: str, title: str) -> Metric:
    def count(row: Row) -> list[float] | None:
        fields = row.get("json_fields") or {}
        return [fields[name], 1.0] if name in fields else None

    return Metric(name=f"json_{name}_accuracy", title=title, kinds=("json",), counts=each(count), share=True)


def _metric(
    name: str, title: str, kind: QuestionKind, counts: Counts, value: Statistic = ratio, share: bool = False
) -> Metric:
    return Metric(name=name, title=title, kinds=(kind,), counts=counts, share=share, value=value)


SCORERS: tuple[Scorer, ...] = (
    Scorer(
        name="labels",
        tier="A",
        kinds=("labels",),
        implementation="medvlm: cells of (item, class) for micro F1; classes that occur in the reference for macro F1",
        score=_labels,
        metrics=(
            _metric("labels_micro_f1", "Labels: micro F1", "labels", each(_label_counts), micro_f1),
            _metric("labels_macro_f1", "Labels: macro F1 of classes that occur", "labels", _per_class, macro_f1),
            # No goal: who knows all answers does not reach 1 where a class is absent.
            replace(
                _metric("labels_macro_f1_zero", "Labels: macro F1, absent 0", "labels", _per_class, macro_f1_zero),
                better="neither",
            ),
            _metric("labels_example_f1", "Labels: mean F1 of an answer", "labels", mean_of("labels_example_f1")),
            _metric("labels_exact", "Labels: exactly the set", "labels", mean_of("labels_exact"), share=True),
        ),
        degenerate="macro F1 hangs on classes with few items; a class without any is named by a flag, left out of the "
        "one and 0 in the other macro F1",
    ),
    Scorer(
        name="spans",
        tier="A",
        kinds=("span",),
        implementation="medvlm: exact match and token F1 after the evaluation script of SQuAD 1.1; entities as sets of "
        "texts without regard to case, not of places",
        score=_spans,
        metrics=(
            _metric("span_exact", "Spans: exact match", "span", mean_of("span_exact"), share=True),
            _metric("span_f1", "Spans: token F1", "span", mean_of("span_f1")),
            _metric("entity_micro_f1", "Entities: micro F1", "span", each(_entity_counts), micro_f1),
            _metric("entity_f1", "Entities: mean F1 of a text", "span", mean_of("entity_f1")),
            _metric("entity_exact", "Entities: exactly the set", "span", mean_of("entity_exact"), share=True),
        ),
        degenerate="a text without entities has no F1 unless one is invented; naming none then counts 1 and is flagged",
    ),
    Scorer(
        name="json",
        tier="A",
        kinds=("json",),
        implementation="medvlm: each field against the reference object; invalid JSON has every field wrong",
        score=_objects,
        metrics=(
            _metric("json_field_accuracy", "JSON: fields that are right", "json", each(_field_counts)),
            *(_one_field(name, title) for name, title in FIELDS.items()),
            _metric("json_exact", "JSON: every field right, none added", "json", mean_of("json_exact"), share=True),
            _metric("json_valid", "JSON: valid", "json", mean_of("json_valid"), share=True),
        ),
    ),
)  # fmt: skip
