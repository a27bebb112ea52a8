"""Samples of a stage as the model sees them: pictures made of the very patches, and the text with what carries loss."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image as Pil

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.rendering import Renderer
from medvlm.data_recipes.rows import Rows
from medvlm.data_recipes.sample import VisualRef, visuals_of
from medvlm.data_recipes.scaled_reading import read_for
from medvlm.data_recipes.thumbnails import thumbnail
from medvlm.model.patches import patch_coordinates
from medvlm.model.processing import MedVLMProcessor, PatchedVisual
from medvlm.train.plan_view import pieces_of

SAMPLES = 6
PICTURES = 4
"""Of one sample, at most."""
SLICES = 6
TILE = 150


def shown_samples(rows: Rows, members: Iterable[int], renderer: Renderer, count: int = SAMPLES) -> list[dict[str, Any]]:
    """The first ``count`` of ``members`` for the report, as plain JSON; what cannot be read is left out."""
    shown: list[dict[str, Any]] = []
    for index in dict.fromkeys(members):
        if len(shown) == count:
            break
        row = rows.row(index)
        if isinstance(row, BadSample):
            continue
        try:
            sides = renderer.sides(row)
            pictures: dict[str, str] = {}
            for turns, side in zip(row.sides(), sides, strict=True):
                for ref, visual in zip(visuals_of(turns), side.visuals, strict=False):
                    pictures.setdefault(f"{ref.kind} {ref.path} {ref.options}", _picture(ref, visual, renderer))
        except BadSample:
            continue
        shown.append(
            {
                "sample_id": row.sample_id,
                "source": row.source,
                "pictures": list(pictures.values())[:PICTURES],
                "sides": [
                    [[piece.text, piece.supervised, piece.visual] for piece in pieces_of(side, renderer.processor)]
                    for side in sides
                ],
                "tokens": sum(len(side.tokens) for side in sides),
                "supervised": sum(int(side.supervised.sum()) for side in sides),
            }
        )
    return shown


def _picture(ref: VisualRef, visual: PatchedVisual, renderer: Renderer) -> str:
    """PNG in base64."""
    if isinstance(renderer.processor, MedVLMProcessor):
        png = picture_of(visual, renderer.processor)
    else:  # how the processors of other families lay out their patches is their own business
        png = thumbnail(read_for(ref, renderer.root, renderer.processor))
    return base64.b64encode(png).decode()


def picture_of(visual: PatchedVisual, processor: MedVLMProcessor) -> bytes:
    """PNG of the numbers that the encoder reads; of a volume or clip up to SLICES slices, first to last.

    The three channels are red, green and blue: of a CT under three windows, the three windows.
    """
    pixels = uncut(visual, processor)
    chosen = np.unique(np.linspace(0, pixels.shape[1] - 1, SLICES).round().astype(int))
    if visual.axis_kind == 0:
        chosen = chosen[:1]
    tiles = []
    for place in chosen:
        tile = Pil.fromarray((pixels[:, place].transpose(1, 2, 0) * 255).round().astype(np.uint8))
        height = max(8, round(TILE * tile.height / tile.width))
        tiles.append(tile.resize((TILE, min(height, 2 * TILE)), Pil.Resampling.NEAREST))
    strip = Pil.new("RGB", (len(tiles) * (TILE + 2) - 2, max(tile.height for tile in tiles)))
    for number, tile in enumerate(tiles):
        strip.paste(tile, (number * (TILE + 2), 0))
    buffer = BytesIO()
    strip.save(buffer, format="PNG")
    return buffer.getvalue()


def uncut(visual: PatchedVisual, processor: MedVLMProcessor) -> np.ndarray:
    """(3, D, H, W) in [0, 1]: the inverse of ``model.patches.cut``."""
    (t, h, w), (gt, gh, gw) = processor.rule.patch, visual.grid
    where = patch_coordinates(visual.grid, processor.rule.merge)  # (P, 3)
    out = np.empty((gt, gh, gw, 3, t, h, w), np.float32)
    out[where[:, 0], where[:, 1], where[:, 2]] = visual.patches.reshape(-1, 3, t, h, w)
    pixels = out.transpose(3, 0, 4, 1, 5, 2, 6).reshape(3, gt * t, gh * h, gw * w)
    return ((pixels + 1) / 2).clip(0, 1)  # patches are in [-1, 1]
