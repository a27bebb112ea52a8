"""TRL and OpenAI rows: ``messages`` of role and content, or ``prompt`` and ``completion``.

Formats: the page "Dataset formats and types" of TRL; content parts as in transformers chat templates and in OpenAI's
chat completions (``image_url``). Visuals without a placeholder are shown first, as TRL does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.own.draft import Workshop
from medvlm.data_recipes.own.llava import conversation
from medvlm.data_recipes.own.placeholders import Waiting
from medvlm.data_recipes.own.rows import SourceRow
from medvlm.data_recipes.own.turns import rest_first, turns_of
from medvlm.data_recipes.sample import Role, Sample, Turn


def samples(source: SourceRow, workshop: Workshop) -> Iterator[Sample]:
    """The sample of one row.

    Raises:
        BadSample: see ``turns.turns_of`` and ``placeholders.Waiting``.
    """
    fields, values = workshop.recipe.fields, source.row.values
    if (fields.turns or "messages") in values or fields.completion not in values:
        yield workshop.conversation(source, conversation(source, workshop, key="messages", first=True))
        return
    waiting = Waiting(workshop.visuals.named(source.row), source.row.where)
    prompt = side(source, fields.prompt, "user", waiting, workshop)
    if workshop.recipe.unplaced != "refuse":
        prompt = rest_first(prompt, waiting)
    waiting.finish()
    completion = side(source, fields.completion, "assistant", waiting, workshop)
    yield workshop.conversation(source, (*prompt, *completion))


def side(source: SourceRow, key: str, role: Role, waiting: Waiting, workshop: Workshop) -> tuple[Turn, ...]:
    """The turns under ``key``: a list of messages, or a text that is one turn of ``role``.

    Raises:
        BadSample: absent, empty, or neither.
    """
    row = source.row
    value: Any = row.values.get(key)
    if value is None or isinstance(value, str):
        if not (value or "").strip():
            raise BadSample(f"{key!r} is empty", where=row.where, mend=f"fill in {key!r} or drop the row")
        value = [{"role": role, "content": value}]
    return turns_of(
        value, waiting, key=key, where=row.where,
        at=lambda named, kind: workshop.visuals.at(named, row.where, "video" if kind == "video" else None),
    )  # fmt: skip
