"""Sample: one conversation about images, volumes, videos or text alone; JSONL in and out, refused when wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

from medvlm.data_recipes.box_text import reference_boxes
from medvlm.data_recipes.errors import BadSample
from medvlm.model.visual import Kind

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "validation", "test"]
QuestionKind = Literal["closed", "choice", "open", "report", "box", "labels", "span", "json"]
VISUAL_KINDS: tuple[str, ...] = get_args(Kind)
_ROLES: tuple[str, ...] = get_args(Role)
_SPLITS: tuple[str, ...] = get_args(Split)
_QUESTION_KINDS: tuple[str, ...] = get_args(QuestionKind)
_PART_TYPES = ("text", *VISUAL_KINDS)


@dataclass(frozen=True, kw_only=True)
class VisualRef:
    """Where a visual lies on disk; what a manifest stores instead of pixels.

    Attributes:
        kind: image, volume or video.
        path: file, or folder of one DICOM series; relative to the manifest's folder, or absolute.
        sha256: of the file, or of the sorted (name, sha256) list of a folder; None when not computed.
        options: keyword arguments of the reader, which the content of the file chooses; others are refused:

            - picture (PNG, JPEG, TIFF, ...): ``frame``, ``modality``, ``spacing_mm``.
            - DICOM file as image or volume: ``frame``.
            - folder of a DICOM series: ``series_uid``, ``resample_gaps``.
            - DICOM file as video: ``start_s``, ``end_s``, ``max_frames``, ``frame_time_s``.
            - NIfTI and other nibabel formats: ``time_index``, ``unit``, ``modality``.
            - NPY: ``spacing_mm``, ``unit``, ``modality``, ``orientation`` (of a volume).
            - NPZ: ``member`` (the name of the array), ``item`` (entry of its first axis), and those of NPY.
            - video (MP4, AVI, ...; an animated GIF as video): ``start_s``, ``end_s``, ``max_frames``, ``modality``,
              ``spacing_mm``.
    """

    kind: Kind
    path: str
    sha256: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


Part = str | VisualRef


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One message: its content is ordered text and visuals, as in transformers chat messages."""

    role: Role
    content: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The text parts joined by a newline."""
        return "\n".join(part for part in self.content if isinstance(part, str))

    @property
    def visuals(self) -> tuple[VisualRef, ...]:
        return tuple(part for part in self.content if isinstance(part, VisualRef))


@dataclass(frozen=True, kw_only=True)
class Preference:
    """A chosen and a rejected ending.

    A side that begins with an assistant turn continues ``Sample.turns``; a side that begins with a user or
    system turn is a whole conversation and may so show other images (MMed-RAG's ``rejected_noised``).
    """

    chosen: tuple[Turn, ...]
    rejected: tuple[Turn, ...]
    made_by: str


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the last user turn asks, for scoring.

    Attributes:
        kind: closed (yes/no, left/right: ``choices`` lists them), choice (lettered options), open, report, box,
            labels (those of ``choices`` that hold, any number), span (words of a text), json (an object).
        answers: accepted answers; the first is the reference. For a report: its text. For a box: one box each, as
            box_text.to_text writes it; any of them is right. For labels: every label that holds, or "none" alone. For
            json: the object, as text.
        choices: the closed set, in the order shown; for labels, all that may hold.
        topic: presence, side, size, count, zone, severity, change, ... ; what subgroup tables group by.
        findings: known findings of a report, as dicts (kind, side, present, ...); empty when only text is known.
        extent_mm: of a box: the field of view in millimetres along x, y(, z); empty when it is unknown.
    """

    kind: QuestionKind
    answers: tuple[str, ...]
    choices: tuple[str, ...] = ()
    topic: str = "other"
    findings: tuple[dict[str, Any], ...] = ()
    extent_mm: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One row of a manifest.

    Attributes:
        turns: the conversation; a training sample ends with an assistant turn unless it has a ``preference``;
            an evaluation sample ends with a user turn and has a ``question``.
        metadata: anything else worth keeping (modality, age_band, view, ...); training reads no more of it than the
            labels of auxiliary losses (docs/contrastive.md).
    """

    sample_id: str
    patient_id: str
    study_id: str
    source: str
    licence: str
    split: Split
    turns: tuple[Turn, ...]
    preference: Preference | None = None
    question: Question | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def sides(self) -> tuple[tuple[Turn, ...], ...]:
        """Every conversation this sample trains on: one, or (chosen, rejected) for a preference."""
        if self.preference is None:
            return (self.turns,)
        return tuple(
            side if side[0].role != "assistant" else self.turns + side
            for side in (self.preference.chosen, self.preference.rejected)
        )

    def said(self) -> str:
        """All that the assistant says in ``turns``, a turn a line; of a question its reference answer."""
        if self.question is not None:
            return self.question.answers[0]
        return "\n".join(turn.text for turn in self.turns if turn.role == "assistant")

    def prompt(self) -> tuple[Turn, ...]:
        """The conversation up to its last question: ``turns`` without the answer that may stand at their end."""
        return self.turns[:-1] if self.turns[-1].role == "assistant" else self.turns

    def visuals(self) -> tuple[VisualRef, ...]:
        """The visuals of ``turns`` in the order in which they stand."""
        return visuals_of(self.turns)


def visuals_of(turns: Iterable[Turn]) -> tuple[VisualRef, ...]:
    """The visuals of ``turns`` in the order in which they stand."""
    return tuple(ref for turn in turns for ref in turn.visuals)


def chat(turns: Iterable[Turn]) -> list[dict[str, Any]]:
    """Turns as transformers chat messages whose visual parts are bare placeholders ``{"type": kind}``."""
    return [
        {
            "role": turn.role,
            "content": [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": part.kind}
                for part in turn.content
            ],
        }
        for turn in turns
    ]


# --- JSONL ---------------------------------------------------------------------------------------------------


def _turn_to_json(turn: Turn) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    for part in turn.content:
        if isinstance(part, str):
            content.append({"type": "text", "text": part})
            continue
        row: dict[str, Any] = {"type": part.kind, "path": part.path}
        if part.sha256 is not None:
            row["sha256"] = part.sha256
        if part.options:
            row["options"] = part.options
        content.append(row)
    return {"role": turn.role, "content": content}


def to_json(sample: Sample) -> dict[str, Any]:
    """The manifest row of ``sample``: plain JSON types, fields in a fixed order."""
    row: dict[str, Any] = {
        "sample_id": sample.sample_id,
        "patient_id": sample.patient_id,
        "study_id": sample.study_id,
        "source": sample.source,
        "licence": sample.licence,
        "split": sample.split,
        "messages": [_turn_to_json(turn) for turn in sample.turns],
    }
    if sample.preference is not None:
        row["preference"] = {
            "chosen": [_turn_to_json(turn) for turn in sample.preference.chosen],
            "rejected": [_turn_to_json(turn) for turn in sample.preference.rejected],
            "made_by": sample.preference.made_by,
        }
    if sample.question is not None:
        row["question"] = {
            "kind": sample.question.kind,
            "answers": list(sample.question.answers),
            "choices": list(sample.question.choices),
            "topic": sample.question.topic,
            "findings": list(sample.question.findings),
        }
        if sample.question.extent_mm:
            row["question"]["extent_mm"] = list(sample.question.extent_mm)
    if sample.metadata:
        row["metadata"] = sample.metadata
    return row


class _Row:
    """A JSON object being read: knows where it stands, so that each complaint names file, row and key."""

    def __init__(self, data: Any, where: str, sample_id: str | None, path: str = "") -> None:
        self.where, self.sample_id, self.path = where, sample_id, path
        if not isinstance(data, dict):
            self.fail(f"{path or 'the row'} must be a JSON object, got {type(data).__name__}", "write an object")
        self.data: dict[str, Any] = data

    def fail(self, reason: str, mend: str) -> None:
        raise BadSample(reason, where=self.where, mend=mend, sample_id=self.sample_id)

    def known(self, allowed: set[str]) -> None:
        unknown = sorted(set(self.data) - allowed)
        if unknown:
            self.fail(f"unknown key {self.path}{unknown[0]!r}", f"remove it or use one of {', '.join(sorted(allowed))}")

    def text(self, key: str, allowed: tuple[str, ...] | None = None) -> str:
        value = self.data.get(key)
        if not isinstance(value, str) or not value.strip():
            self.fail(
                f"{self.path}{key!r} must be a non-empty string, got {value!r}", f"fill in {key!r} or drop the row"
            )
        if allowed is not None and value not in allowed:
            self.fail(f"{self.path}{key!r} is {value!r}", f"use one of {', '.join(allowed)}")
        return str(value)

    def items(self, key: str, default: list | None = None) -> list:
        value = self.data.get(key, default)
        if not isinstance(value, list):
            self.fail(f"{self.path}{key!r} must be a list, got {type(value).__name__}", f"write {key!r} as a list")
        return value  # type: ignore[return-value]


def _turn_from_json(data: Any, parent: _Row, path: str) -> Turn:
    row = _Row(data, parent.where, parent.sample_id, path + ".")
    row.known({"role", "content"})
    role = row.text("role", _ROLES)
    raw = row.data.get("content")
    if isinstance(raw, str):
        raw = [{"type": "text", "text": raw}]
    if not isinstance(raw, list) or not raw:
        row.fail(f"{path}.content must be a non-empty list of parts", "write text and visual parts")
    parts: list[Part] = []
    for number, item in enumerate(raw):  # type: ignore[arg-type]
        part = _Row(item, parent.where, parent.sample_id, f"{path}.content[{number}].")
        kind = part.text("type", _PART_TYPES)
        if kind == "text":
            part.known({"type", "text"})
            parts.append(part.text("text"))
            continue
        part.known({"type", "path", "sha256", "options"})
        options = part.data.get("options", {})
        if not isinstance(options, dict):
            part.fail(f"{part.path}options must be an object", "write reader options as an object")
        parts.append(VisualRef(kind=kind, path=part.text("path"), sha256=part.data.get("sha256"), options=options))  # type: ignore[arg-type]
    if role == "assistant" and any(isinstance(p, VisualRef) for p in parts):
        row.fail(f"{path} is an assistant turn with a visual", "visuals belong to user or system turns")
    return Turn(role=role, content=tuple(parts))  # type: ignore[arg-type]


def _extent(ask: _Row) -> tuple[float, ...]:
    values = ask.items("extent_mm", [])
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and 0 < v < float("inf") for v in values):
        ask.fail(f"question.extent_mm is {values}", "write positive millimetres along x, y(, z), or leave it out")
    return tuple(float(value) for value in values)


def _turns_from_json(row: _Row, key: str) -> tuple[Turn, ...]:
    items = row.items(key)
    if not items:
        row.fail(f"{row.path}{key!r} is empty", "write at least one turn")
    turns = tuple(_turn_from_json(item, row, f"{row.path}{key}[{n}]") for n, item in enumerate(items))
    body = turns[1:] if turns[0].role == "system" else turns
    for before, after in pairwise(body):
        if before.role == after.role or after.role == "system":
            row.fail(
                f"{row.path}{key!r} has {after.role} after {before.role}",
                "alternate user and assistant turns; a system turn comes first",
            )
    return turns


_KEYS = {
    "sample_id", "patient_id", "study_id", "source", "licence", "split", "messages", "preference", "question",
    "metadata",
}  # fmt: skip


def from_json(data: Any, *, where: str) -> Sample:
    """Check one manifest row and make the Sample.

    Args:
        data: the parsed JSON of one line.
        where: "path:row", named in every complaint.

    Raises:
        BadSample: anything missing, unknown, empty or out of order; names the key and the mend.
    """
    sample_id = data.get("sample_id") if isinstance(data, dict) else None
    row = _Row(data, where, sample_id if isinstance(sample_id, str) else None)
    row.known(_KEYS)
    preference = question = None
    if row.data.get("preference") is not None:
        side = _Row(row.data["preference"], where, row.sample_id, "preference.")
        side.known({"chosen", "rejected", "made_by"})
        preference = Preference(
            chosen=_turns_from_json(side, "chosen"),
            rejected=_turns_from_json(side, "rejected"),
            made_by=side.text("made_by"),
        )
        for name, turns in (("chosen", preference.chosen), ("rejected", preference.rejected)):
            if turns[-1].role != "assistant":
                side.fail(f"preference.{name!r} must end with an assistant turn", "end it with the answer")
        if preference.chosen == preference.rejected:
            side.fail("preference.chosen and preference.rejected are the same", "a pair must differ")
    if row.data.get("question") is not None:
        ask = _Row(row.data["question"], where, row.sample_id, "question.")
        ask.known({"kind", "answers", "choices", "topic", "findings", "extent_mm"})
        answers = ask.items("answers")
        if not answers or not all(isinstance(a, str) and a.strip() for a in answers):
            ask.fail("question.answers must be non-empty strings", "an empty answer cannot be scored; drop the row")
        question = Question(
            kind=ask.text("kind", _QUESTION_KINDS),  # type: ignore[arg-type]
            answers=tuple(answers),
            choices=tuple(ask.items("choices", [])),
            topic=ask.data.get("topic", "other"),
            findings=tuple(ask.items("findings", [])),
            extent_mm=_extent(ask),
        )
        if question.kind == "box":
            try:
                reference_boxes(question.answers, question.extent_mm)
            except ValueError as error:
                ask.fail(f"question.answers: {error}", "write one box per answer, as docs/grounding.md says")
        elif question.extent_mm:
            ask.fail(f"a {question.kind} question has question.extent_mm", "remove it, or set question.kind to box")
        if question.kind in ("closed", "choice") and len(question.choices) < 2:
            ask.fail(f"a {question.kind} question needs at least two choices", "list them in question.choices")
    sample = Sample(
        sample_id=row.text("sample_id"),
        patient_id=row.text("patient_id"),
        study_id=row.text("study_id"),
        source=row.text("source"),
        licence=row.text("licence"),
        split=row.text("split", _SPLITS),  # type: ignore[arg-type]
        turns=_turns_from_json(row, "messages"),
        preference=preference,
        question=question,
        metadata=row.data.get("metadata", {}),
    )
    last = sample.turns[-1].role
    if preference is None and question is None and last != "assistant":
        row.fail("the conversation ends without an answer", "end with an assistant turn, or add a question")
    if question is not None and last != "user":
        row.fail("an evaluation sample must end with its question", "put the answer into question.answers")
    return sample


def from_line(line: str, *, where: str) -> Sample | BadSample:
    """The sample of one line of a manifest, or why it cannot be used."""
    try:
        return from_json(json.loads(line), where=where)
    except json.JSONDecodeError as error:
        return BadSample(f"not JSON: {error.msg} at column {error.colno}", where=where, mend="fix the line")
    except BadSample as bad:
        return bad


def read_jsonl(path: str | Path) -> Iterator[Sample | BadSample]:
    """Read a manifest lazily; a bad row comes out as the BadSample that tells why, so that the rest is kept."""
    with Path(path).open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            yield from_line(line, where=f"{path}:{number}")
