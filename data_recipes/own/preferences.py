"""TRL preference rows: ``prompt``, ``chosen`` and ``rejected``, as texts or as messages, with ``images``.

Without ``prompt``, chosen and rejected are whole conversations and the turns that both begin with are the prompt (the
implicit prompt of TRL). ``rejected_images`` shows other images with the rejected side (MMed-RAG, Xia et al. 2024).
"""

from __future__ import annotations

from collections.abc import Iterator

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.own.draft import Workshop
from medvlm.data_recipes.own.messages import side
from medvlm.data_recipes.own.placeholders import Waiting
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


def _sides(
    source: SourceRow, workshop: Workshop, refs: list[VisualRef]
) -> tuple[tuple[Turn, ...], tuple[Turn, ...], tuple[Turn, ...]]:
    fields, where = workshop.recipe.fields, source.row.where
    waiting = Waiting(refs, where)
    if source.row.values.get(fields.prompt):
        prompt = side(source, fields.prompt, "user", waiting, workshop)
        chosen = side(source, fields.chosen, "assistant", waiting, workshop)
        rejected = side(source, fields.rejected, "assistant", waiting, workshop)
    else:
        chosen = side(source, fields.chosen, "assistant", waiting, workshop)
        rejected = side(source, fields.rejected, "assistant", Waiting(refs, where), workshop)
        pairs = zip(chosen, rejected, strict=False)
        common = next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(chosen), len(rejected)))
        prompt, chosen, rejected = chosen[:common], chosen[common:], rejected[common:]
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
