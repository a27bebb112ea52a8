"""LLaVA rows: ``conversations`` of from and value, with ``<image>`` where ``image`` is shown.

Liu et al., Visual Instruction Tuning, NeurIPS (2023): docs/Finetune_Custom_Data.md of haotian-liu/LLaVA.
"""

from __future__ import annotations

from collections.abc import Iterator

from medvlm.data_recipes.own.draft import Workshop
from medvlm.data_recipes.own.placeholders import Waiting
from medvlm.data_recipes.own.rows import SourceRow
from medvlm.data_recipes.own.turns import rest_first, turns_of
from medvlm.data_recipes.sample import Sample, Turn


def samples(source: SourceRow, workshop: Workshop) -> Iterator[Sample]:
    """The sample of one row.

    Raises:
        BadSample: see ``turns.turns_of`` and ``placeholders.Waiting``.
    """
    yield workshop.conversation(source, conversation(source, workshop, key="conversations", first=False))


def conversation(source: SourceRow, workshop: Workshop, *, key: str, first: bool) -> tuple[Turn, ...]:
    """The turns of the row.

    Args:
        key: where they stand unless the recipe says so.
        first: what happens to visuals without a placeholder unless the recipe says so: shown first, or refused.
    """
    row, recipe = source.row, workshop.recipe
    key = recipe.fields.turns or key
    waiting = Waiting(workshop.visuals.named(row), row.where)
    turns = turns_of(
        row.values.get(key), waiting, key=key, where=row.where,
        at=lambda named, kind: workshop.visuals.at(named, row.where, "video" if kind == "video" else None),
    )  # fmt: skip
    system = row.values.get("system")
    if isinstance(system, str) and system.strip() and turns[0].role != "system":
        turns = (Turn(role="system", content=(system.strip(),)), *turns)
    if recipe.unplaced == "first" or (recipe.unplaced is None and first):
        turns = rest_first(turns, waiting)
    waiting.finish()
    return turns
