"""A box in another place."""

from __future__ import annotations

import re
from dataclasses import astuple

import numpy as np

from medvlm.data_recipes.box_text import read_box, to_text
from medvlm.data_recipes.grounding import Box, box_of, iou
from medvlm.data_recipes.pairs.case import Case, Change
from medvlm.data_recipes.pairs.pool import Pool

MOST_IOU = 0.3
"""A box that overlaps the true one by less is wrong by every usual threshold (0.5, and 0.3 for small lesions)."""

TRIES = 64
_BOX = re.compile(r"<box>[^<]*</box>", re.I)


def shifted_box(case: Case, rng: np.random.Generator, pool: Pool) -> Change | None:
    """The box of the answer, of the same size, moved within the field of view until IoU < MOST_IOU; any language.

    A question that takes several boxes (``question.answers``) must be missed by all of them. Boxes in millimetres need
    the field of view (``question.extent_mm`` or metadata ``extent_mm``) and are left alone without it.
    """
    found = _BOX.findall(case.answer)
    if len(found) != 1:
        return None
    axes = 3 if found[0].count(",") == 5 else 2
    question = case.sample.question
    stated = question.extent_mm if question is not None else tuple(case.sample.metadata.get("extent_mm", ()))
    in_mm = re.search(r"\)\s*mm", found[0]) is not None
    if in_mm and len(stated) != axes:
        return None
    extent = stated if in_mm else None
    true = [read_box(text, axes=axes, extent=extent).box for text in (question.answers if question else (found[0],))]
    first = read_box(found[0], axes=axes, extent=extent).box
    if first is None:
        return None
    for _ in range(TRIES):
        moved = _moved(first, rng)
        if all(box is None or iou(moved, box) < MOST_IOU for box in true):
            new = to_text(moved, extent)
            text = case.answer.replace(found[0], new)
            return Change(text=text, how={"old": found[0], "new": new, "iou": round(iou(moved, first), 3)})
    return None


def _moved(box: Box, rng: np.random.Generator) -> Box:
    half = len(box.low)
    values = astuple(box)
    sizes = [values[half + axis] - values[axis] for axis in range(half)]
    low = [float(rng.uniform(0, 1 - size)) if size < 1 else 0.0 for size in sizes]
    return box_of(low, [min(1.0, start + size) for start, size in zip(low, sizes, strict=True)])
