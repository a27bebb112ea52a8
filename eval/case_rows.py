"""One case as JSON for the page: question, reference, and the answers under every condition with their marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medvlm.data_recipes.box_text import read_box
from medvlm.eval.extract import choice_index, options
from medvlm.eval.gallery import note, verdict, worth
from medvlm.eval.pictures import Embedded
from medvlm.eval.plan import Ask, Item
from medvlm.eval.rows import Row

_NO_MARK = frozenset(
    {
        "request_id", "sample_id", "patient", "study", "condition", "kind", "topic", "dimension", "strata", "value",
        "rule", "unparsed", "empty", "truncated", "confidence", "correct", "choices", "reference", "flags", "added",
        "bleu",
    }
)  # fmt: skip
"""Keys of a score row that say what it is about, or that a person cannot read."""


@dataclass(frozen=True, kw_only=True)
class Shortened:
    """Texts for the page, none longer than ``most`` characters: the beginning and the end are kept."""

    most: int

    def __call__(self, text: str) -> str:
        if len(text) <= self.most:
            return text
        half = self.most // 2
        left_out = len(text) - 2 * half
        return f"{text[:half]}\n[… {left_out} characters left out here; the run folder holds all …]\n{text[-half:]}"


def case_row(
    asked: Sequence[Sequence[tuple[Ask, Row]]],
    texts: Sequence[Mapping[str, str]],
    short: Shortened,
    tags: Sequence[str],
) -> Row:
    """The row of one case.

    Args:
        asked: per run, the requests of the sample with their score rows, that with its own image first.
        texts: per run, request_id -> what was written.
        short: cuts texts.
        tags: of the case.
    """
    ask, score = asked[0][0]
    sample, choices, right = ask.item.sample, _choices(ask), _right(ask)
    return {
        "id": sample.sample_id,
        "source": sample.source,
        "kind": ask.question.kind,
        "topic": ask.question.topic,
        "dimension": ask.item.dimension,
        "modality": str(sample.metadata.get("modality", "unknown")).replace("unknown", ""),
        "question": short(ask.prompt),
        "choices": choices,
        "right": right,
        "reference": [f"{chr(65 + place)}. {choices[place]}" for place in right]
        if ask.question.kind == "choice"
        else [short(answer) for answer in ask.question.answers],
        "tags": list(tags),
        "verdict": verdict(score),
        "worth": worth(score),
        "confidence": score.get("confidence"),
        "answers": [
            _answer(run, ask, other, row, texts[run].get(other.request_id, ""), short)
            for run, pairs in enumerate(asked)
            for other, row in pairs
        ],
        "boxes": [],
        "media": [],
        "missing": [],
    }


def _choices(ask: Ask) -> list[str]:
    """The choices as shown; where the manifest lists bare letters, their texts out of the question."""
    shown = list(ask.question.choices)
    bare = shown == [chr(65 + place) for place in range(len(shown))]
    return list(options(ask.question, ask.prompt)) if bare else shown


def _right(ask: Ask) -> list[int]:
    """Places of the choices that are right."""
    if ask.question.kind not in ("closed", "choice"):
        return []
    places = (choice_index(ask.question, answer, ask.prompt) for answer in ask.question.answers)
    return sorted({place for place in places if place is not None})


def _answer(run: int, first: Ask, ask: Ask, score: Row, text: str, short: Shortened) -> Row:
    row: Row = {
        "run": run,
        "condition": ask.condition,
        "text": short(text),
        "verdict": verdict(score),
        "note": note(score),
        "rule": score["rule"],
        "value": None if score["value"] is None else short(str(score["value"])),
        "confidence": score.get("confidence"),
        "truncated": score["truncated"],
        "flags": list(score.get("flags", ())),
        "marks": _marks(score),
    }
    # Under a control the question may have other words, or its choices another order.
    if ask.prompt != first.prompt:
        row["asked"] = short(ask.prompt)
    if ask.question.answers != first.question.answers:
        row["reference"] = [short(answer) for answer in ask.question.answers]
    return row


def _marks(score: Row) -> list[list[str]]:
    """(what, value) of all that scorers said, for people."""
    found: list[list[str]] = []
    for key, value in score.items():
        if key in _NO_MARK or value is None:
            continue
        parts = value.items() if isinstance(value, dict) else [("", value)]
        for part, inner in parts:
            numbers = isinstance(inner, list) and not all(isinstance(one, str) for one in inner)  # counts of a corpus
            if inner in (None, [], {}, "") or isinstance(inner, dict) or numbers:
                continue
            said = ", ".join(map(str, inner)) if isinstance(inner, list) else _said(inner)
            found.append([" ".join(f"{key} {part}".replace("_", " ").split()), said[:300]])
    return found[:40]


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def boxes_of(case: Row, item: Item, shown: Embedded) -> list[Row]:
    """Reference and answers as corners in fractions of what is shown; under a control another picture was shown."""
    extent, found = item.question.extent_mm or None, []
    told = [("reference", None, text) for text in item.question.answers]
    told += [
        ("answer", answer["run"], answer["value"])
        for answer in case["answers"]
        if answer["condition"] == "image" and answer["value"]
    ]
    for what, run, text in told:
        for axes in (2, 3):
            box = read_box(text, axes=axes, extent=extent if extent and len(extent) == axes else None).box
            if box is not None:
                low, high = shown.turning.box(box.low, box.high)
                found.append({"what": what, "run": run, "low": [*low, *box.low[2:]], "high": [*high, *box.high[2:]]})
    return found
