"""Marks added to a finished run: marks.NAME.jsonl beside scores.jsonl, a row per answer, appended as they come.

A row belongs to the answer and the reference that it was made of. When another extraction reads another answer, its
mark is no longer used, and ``medvlm eval mark`` makes a new one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from medvlm.eval.rows import Row, drop_torn_line, read_rows

MARKS = "marks.{name}.jsonl"


def content_of(score: Row) -> str:
    """Names the answer and the reference of a row of scores.jsonl: 16 hexadecimal digits."""
    content = json.dumps([score["value"], score.get("reference")], ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def marks_path(out: Path, name: str) -> Path:
    """Where the marks of the scorer ``name`` stand."""
    return out / MARKS.format(name=name)


def made(out: Path, name: str) -> dict[str, Row]:
    """request_id -> its latest mark by the scorer ``name``; a line that a killed run left half written is cut."""
    path = marks_path(out, name)
    drop_torn_line(path)
    return {row["request_id"]: row for row in read_rows(path)}


def is_of(mark: Row | None, score: Row) -> bool:
    """Whether ``mark`` was made of the answer and the reference that ``score`` holds."""
    return mark is not None and mark["content"] == content_of(score)


def mark_row(score: Row, marks: Mapping[str, object]) -> Row:
    """The row of marks.NAME.jsonl."""
    return {"request_id": score["request_id"], "content": content_of(score), **marks}


def with_marks(out: Path, scores: Sequence[Row]) -> list[Row]:
    """``scores`` with the marks of every marks.*.jsonl of ``out`` that still belong to them.

    The name of a scorer whose mark a row has stands in its "added"; its flags are put to the row's.
    """
    rows = [dict(score) for score in scores]
    for path in sorted(out.glob(MARKS.format(name="*"))):
        name = path.name.removeprefix("marks.").removesuffix(".jsonl")
        marks = {row["request_id"]: row for row in read_rows(path, allow_torn=True)}
        for row in rows:
            mark = marks.get(row["request_id"])
            if mark is None or not is_of(mark, row):
                continue
            row["flags"] = [*row.get("flags", ()), *(f"{name}: {flag}" for flag in mark.get("flags", ()))]
            row |= {key: value for key, value in mark.items() if key not in ("request_id", "content", "flags")}
            row["added"] = [*row.get("added", ()), name]
    return rows
