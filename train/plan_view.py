"""A sample as the model sees it: its tokens as text, which of them carry loss, and each visual with its grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.markup import escape

from medvlm.model.loading import Processor
from medvlm.model.processing import Rendered

KINDS = ("image", "volume", "video")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Tokens that follow each other and are alike.

    Attributes:
        text: what they say; of a visual: its grid, spacing and tokens.
        supervised: they carry loss.
        visual: they stand for a visual.
    """

    text: str
    supervised: bool = False
    visual: bool = False


def pieces_of(rendered: Rendered, processor: Processor) -> list[Piece]:
    """The tokens of ``rendered`` in order."""
    pieces: list[Piece] = []
    visuals = iter(rendered.visuals)
    tokens, supervised = rendered.tokens.tolist(), rendered.supervised.tolist()
    start = rest = 0
    while start < len(tokens):
        visual = tokens[start] == processor.visual_token_id
        if visual and rest:
            # A volume shown as slices has text between them.
            start, rest = start + 1, rest - 1
            continue
        if visual:
            shown = next(visuals)
            stop, rest = start + 1, shown.tokens - 1
            spacing = ", ".join("unknown" if math.isnan(s) else f"{s:.2f}" for s in shown.spacing)
            grid = " x ".join(str(g) for g in shown.grid)
            kept = "" if shown.kept.all() else f" of {len(shown.kept)}"
            said = f"{KINDS[shown.axis_kind]}: {grid} patches, spacing {spacing}, {shown.tokens} tokens{kept}"
            pieces.append(Piece(text=f"⟦{said}⟧", visual=True))
        else:
            stop = start
            while (
                stop < len(tokens)
                and tokens[stop] != processor.visual_token_id
                and supervised[stop] == supervised[start]
            ):
                stop += 1
            text = str(processor.tokenizer.decode(tokens[start:stop]))
            pieces.append(Piece(text=text, supervised=bool(supervised[start])))
        start = stop
    return pieces


def as_the_model_sees_it(rendered: Rendered, processor: Processor) -> str:
    """The tokens as text, with rich markup: what carries loss in green, a visual as one bracket with its grid."""
    shown = []
    for piece in pieces_of(rendered, processor):
        text = escape(piece.text)
        colour = "cyan" if piece.visual else "green" if piece.supervised else ""
        shown.append(f"[{colour}]{text}[/{colour}]" if colour else text)
    return "".join(shown)
