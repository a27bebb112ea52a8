"""The run folder: everything that the stages after generate need, so that they run alone, offline, without the data.

run.json                 whose answers, of which questions, asked how, with which versions
samples.jsonl            the samples as asked, paths of visuals made absolute
requests.jsonl           the name of every request, its condition, conversation and question
responses.rank*.jsonl    what was written, appended as it comes, one file per process
timings.rank*.jsonl      how long each took, and tokens where they are known
quarantine.jsonl         what could not be asked, and why; quarantine.rank*.jsonl while it is being asked
extractions.jsonl, scores.jsonl, metrics.json, report.html
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import VISUAL_KINDS, Question, Sample, Turn, VisualRef, from_json, to_json
from medvlm.eval.plan import Ask, Item, Plan
from medvlm.eval.rows import Row, read_rows, write_json, write_rows

RESPONSES = "responses.rank{rank}.jsonl"


def responses_of(out: Path) -> list[Row]:
    """Every response in ``out``, of all ranks, each request once; a line that is still being written is left out."""
    known: dict[str, Row] = {}
    for path in sorted(out.glob(RESPONSES.format(rank="*")), key=_rank):
        for row in read_rows(path, allow_torn=True):
            known.setdefault(row["request_id"], row)
    return list(known.values())


def _rank(path: Path) -> int:
    return int(path.name.removeprefix("responses.rank").removesuffix(".jsonl"))


def write_plan(out: Path, plan: Plan) -> None:
    """Keep what is asked: samples.jsonl and requests.jsonl, in the order of the plan."""
    items = {ask.item.sample.sample_id: ask.item for ask in plan.asks}
    write_rows(out / "samples.jsonl", [to_json(_absolute(item)) for item in items.values()])
    write_rows(out / "requests.jsonl", [_request_row(ask) for ask in plan.asks])


def _absolute(item: Item) -> Sample:
    return replace(item.sample, turns=_absolute_turns(item.sample.turns, item.root))


def _absolute_turns(turns: Sequence[Turn], root: Path) -> tuple[Turn, ...]:
    def part(value: str | VisualRef) -> str | VisualRef:
        return value if isinstance(value, str) else replace(value, path=str((root / value.path).absolute()))

    return tuple(replace(turn, content=tuple(part(value) for value in turn.content)) for turn in turns)


def _request_row(ask: Ask) -> Row:
    asked = replace(ask.item.sample, turns=_absolute_turns(ask.turns, ask.item.root), question=ask.question)
    row = to_json(asked)
    return {
        "request_id": ask.request_id,
        "sample_id": ask.item.sample.sample_id,
        "condition": ask.condition,
        "max_new_tokens": ask.max_new_tokens,
        "messages": row["messages"],
        "question": row["question"],
    }


def read_plan(out: Path) -> tuple[Ask, ...]:
    """The requests that ``out`` was made for, in their order.

    Raises:
        ValueError: ``out`` is no run folder, or a file of it was changed by hand.
    """
    path = out / "samples.jsonl"
    if not path.exists():
        raise ValueError(f"{out} is no run folder: it has no samples.jsonl; give the --out of medvlm eval run")
    try:
        items = {
            row["sample_id"]: (Item(sample=from_json(row, where=f"{path}:{number}"), manifest=path), row)
            for number, row in enumerate(read_rows(path), start=1)
        }
        return tuple(
            _ask(row, *items[row["sample_id"]], out / "requests.jsonl") for row in read_rows(out / "requests.jsonl")
        )
    except BadSample as bad:
        raise ValueError(f"{bad}; the file was changed since the run: start the run again in another folder") from bad


def _ask(row: Row, item: Item, sample: Row, path: Path) -> Ask:
    asked = item.sample
    if row["messages"] != sample["messages"] or row["question"] != sample["question"]:
        asked = from_json({**sample, "messages": row["messages"], "question": row["question"]}, where=str(path))
    assert asked.question is not None, "requests.jsonl holds questions only"
    return Ask(
        request_id=row["request_id"], item=item, condition=row["condition"], turns=asked.turns, question=asked.question,
        max_new_tokens=row["max_new_tokens"],
    )  # fmt: skip


def shown_in(out: Path) -> dict[str, bool]:
    """request_id -> whether a visual is shown, of all requests in their order: all that counting them needs."""
    return {
        row["request_id"]: any(
            isinstance(part, dict) and part.get("type") in VISUAL_KINDS
            for message in row["messages"]
            if isinstance(message["content"], list)
            for part in message["content"]
        )
        for row in read_rows(out / "requests.jsonl")
    }


def asked_in(asks: Sequence[Ask]) -> dict[str, tuple[Question, str]]:
    """request_id -> (question, its text), for the stages extract and score."""
    return {ask.request_id: (ask.question, ask.prompt) for ask in asks}


def claim(out: Path, run: dict[str, Any]) -> None:
    """Make ``out`` the run folder of ``run``, or refuse when it is another's: answers would be mixed.

    Raises:
        ValueError: it holds another model, task, style, or the same model asked otherwise (slices, likelihood, ...).
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "run.json"
    if path.exists():
        owner = json.loads(path.read_text(encoding="utf-8"))
        for key in ("model", "task", "style", "answering"):
            if owner.get(key) != run.get(key):
                raise ValueError(
                    f"{out} holds the answers of {key} {owner.get(key)!r}, not of {run.get(key)!r}; give another "
                    "folder with --out"
                )
    write_json(path, run)


def read_run(out: Path) -> dict[str, Any]:
    """run.json.

    Raises:
        ValueError: there is none.
    """
    path = out / "run.json"
    if not path.exists():
        raise ValueError(f"{out} is no run folder: it has no run.json; give the --out of medvlm eval run")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def reasons_of(quarantine: Sequence[Row]) -> list[tuple[str, int]]:
    """The most frequent reasons of a quarantine."""
    return Counter(row["reason"] for row in quarantine).most_common(3)
