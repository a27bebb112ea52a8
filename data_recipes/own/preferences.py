"""TRL preference rows: ``prompt``, ``chosen`` and ``rejected``, as texts or as messages, with ``images``.

Without ``prompt``, chosen and rejected are whole conversations and the turns that both begin with are the prompt (the
implicit prompt of TRL). ``rejected_images`` shows other images with the rejected side (MMed-RAG, Xia et al. 2024).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.own.draft import Workshop
from medvlm.data_recipes.own.messages import side
from medvlm.data_recipes.own.placeholders import PLACEHOLDER, Waiting
from medvlm.data_recipes.own.rows import SourceRow
from medvlm.data_recipes.own.turns import rest_first
from medvlm.data_recipes.own.visuals import written_text
from medvlm.data_recipes.sample import Preference, Sample, Turn, VisualRef


def samples(source: SourceRow, workshop: Workshop) -> Iterator[Sample]:
    """The pair of one row.

    Raises:
        BadSample: an empty side, equal sides, no common prompt, or visuals and placeholders that do not match.
    """
    row, fields = source.row, workshop.recipe.fields
    refs = workshop.visuals.named(row)
    made_by = written_text(row, fields.made_by) if fields.made_by in row.values else ""
    prompt, chosen, rejected = _sides(source, workshop, refs)
    others = workshop.visuals.under(row, fields.rejected_visuals)
    if others:
        shown, _, _ = _sides(source, workshop, others)
        rejected = (*shown, *rejected)
    preference = Preference(chosen=chosen, rejected=rejected, made_by=made_by or workshop.recipe.name)
    yield workshop.pair(source, prompt, preference)


def _is_whole(side: Any) -> bool:
    """Whether a side is a conversation of its own, which ``prompt`` only repeats (UltraFeedback, older TRL)."""
    first = side[0] if isinstance(side, list) and side else None
    return isinstance(first, dict) and first.get("role", first.get("from")) not in ("assistant", "gpt")


def _same_prompt(stated: Any, common: tuple[Turn, ...], key: str, where: str) -> None:
    if isinstance(stated, str) and stated.strip() and common:
        parts = [part.strip() for part in PLACEHOLDER.split(stated)[::2]]
        if not all(any(part in turn.text for turn in common) for part in parts):
            raise BadSample(
                f"{key!r} is not what both sides begin with", where=where, mend=f"remove {key!r}, or correct the sides"
            )


def _sides(
    source: SourceRow, workshop: Workshop, refs: list[VisualRef]
) -> tuple[tuple[Turn, ...], tuple[Turn, ...], tuple[Turn, ...]]:
    fields, row, where = workshop.recipe.fields, source.row, source.row.where
    waiting = Waiting(refs, where)
    if row.values.get(fields.prompt) and not _is_whole(row.values.get(fields.chosen)):
        prompt = side(source, fields.prompt, "user", waiting, workshop)
        chosen = side(source, fields.chosen, "assistant", waiting, workshop)
        rejected = side(source, fields.rejected, "assistant", waiting, workshop)
    else:
        chosen = side(source, fields.chosen, "assistant", waiting, workshop)
        rejected = side(source, fields.rejected, "assistant", Waiting(refs, where), workshop)
        pairs = zip(chosen, rejected, strict=False)
        common = next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(chosen), len(rejected)))
        prompt, chosen, rejected = chosen[:common], chosen[common:], rejected[common:]
        _same_prompt(row.values.get(fields.prompt), prompt, fields.prompt, where)
    if not prompt or not chosen or not rejected:
        raise BadSample(
            f"there is no {fields.prompt!r}, and {fields.chosen!r} and {fields.rejected!r} do not begin alike and end "
            "apart",
            where=where,
            mend=f"write {fields.prompt!r}, or drop the row",
        )
    if workshop.recipe.unplaced != "refuse":
        prompt = rest_first(prompt, waiting)
    waiting.finish()
    return prompt, chosen, rejected
