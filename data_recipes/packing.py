"""Samples -> packs under a token and a patch budget; a pack -> PackedBatch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from medvlm.data_recipes.errors import BadSample
from medvlm.model.batch import IGNORED, PackedBatch
from medvlm.model.processing import PatchedVisual, Rendered, visual_tensors

_OPEN_PACKS = 64
"""How many packs stay open for best fit: more waste nothing noticeable and cost time."""


@dataclass(frozen=True, kw_only=True)
class Length:
    """What one sample costs: decoder tokens, encoder patches, and supervised tokens.

    ``visual_tokens`` are those that the decoder sees of its visuals, out of ``visual_tokens_made``.
    """

    tokens: int
    patches: int
    supervised: int
    visual_tokens: int = 0
    visual_tokens_made: int = 0


def pack(
    lengths: Sequence[Length] | Mapping[int, Length],
    order: Sequence[int],
    tokens_per_pack: int,
    patches_per_pack: int,
) -> list[list[int]]:
    """Fill packs by best fit over the samples in ``order``; samples are atomic, none is cut or dropped.

    Args:
        lengths: cost of every sample.
        order: indices into ``lengths``; a sample may occur more than once.

    Returns:
        Packs of indices, in the order in which they were filled.

    Raises:
        BadSample: one sample alone is over a budget; the loader quarantines such samples before.
    """
    open_packs: list[tuple[int, int, list[int]]] = []  # (tokens left, patches left, members)
    done: list[list[int]] = []
    for index in order:
        length = lengths[index]
        check_fits(length, tokens_per_pack, patches_per_pack, where=f"sample number {index}")
        best = -1
        for position, (tokens, patches, _) in enumerate(open_packs):
            fits = length.tokens <= tokens and length.patches <= patches
            if fits and (best < 0 or tokens < open_packs[best][0]):
                best = position
        if best >= 0:
            tokens, patches, members = open_packs[best]
            open_packs[best] = (tokens - length.tokens, patches - length.patches, [*members, index])
            continue
        if len(open_packs) == _OPEN_PACKS:
            fullest = min(range(_OPEN_PACKS), key=lambda position: open_packs[position][0])
            done.append(open_packs.pop(fullest)[2])
        open_packs.append((tokens_per_pack - length.tokens, patches_per_pack - length.patches, [index]))
    return done + [members for _, _, members in open_packs]


def check_fits(length: Length, tokens_per_pack: int, patches_per_pack: int, *, where: str) -> None:
    """Raise BadSample when a sample alone is over a budget, or trains nothing."""
    if length.tokens > tokens_per_pack or length.patches > patches_per_pack:
        raise BadSample(
            f"{length.tokens} tokens and {length.patches} patches, over the budget of {tokens_per_pack} tokens and "
            f"{patches_per_pack} patches in a pack",
            where=where,
            mend="raise data.tokens_per_pack or data.patches_per_pack, or lower the processor's max_patches; "
            "processor.reduction makes fewer tokens too",
        )
    if length.supervised == 0:
        raise BadSample("no token carries loss", where=where, mend="give the last assistant turn an answer")


def length_of(sides: Sequence[Rendered]) -> Length:
    """Cost of a sample: its sides lie in one pack, and a visual that they share is encoded once."""
    visuals = _distinct(sides)
    return Length(
        tokens=sum(len(side.tokens) for side in sides),
        patches=sum(len(visual.patches) for visual in visuals),
        supervised=min(int(_shifted(side)[1].sum()) for side in sides),
        visual_tokens=sum(visual.tokens for visual in visuals),
        visual_tokens_made=sum(len(visual.kept) for visual in visuals),
    )


def collate(samples: Sequence[tuple[str, Sequence[Rendered]]], rows: Sequence[Any] = ()) -> PackedBatch:
    """Lay samples end to end.

    Args:
        samples: (sample id, its sides); a preference has two, chosen before rejected.
        rows: the Sample that each was made from, for objectives that read more of it than its tokens.
    """
    tokens, targets, positions, ends, names = [], [], [], [0], []
    visuals: list[PatchedVisual] = []
    placements: list[int] = []
    place: dict[int, int] = {}
    for sample_id, sides in samples:
        for number, side in enumerate(sides):
            target, _ = _shifted(side)
            tokens.append(side.tokens)
            targets.append(target)
            positions.append(side.positions)
            ends.append(ends[-1] + len(side.tokens))
            names.append(sample_id if len(sides) == 1 else f"{sample_id}#{('chosen', 'rejected')[number]}")
            for visual in side.visuals:
                if id(visual) not in place:
                    place[id(visual)] = len(visuals)
                    visuals.append(visual)
                placements.append(place[id(visual)])
    return PackedBatch(
        tokens=torch.from_numpy(np.concatenate(tokens)),
        targets=torch.from_numpy(np.concatenate(targets)),
        positions=torch.from_numpy(np.concatenate(positions)),
        cu_seqlens=torch.tensor(ends, dtype=torch.int32),
        placements=torch.tensor(placements, dtype=torch.int64),
        sample_ids=tuple(names),
        rows=tuple(rows),
        **(visual_tensors(visuals) if visuals else _no_visuals()),
    )


def _shifted(side: Rendered) -> tuple[np.ndarray, np.ndarray]:
    """The token to predict at each position, IGNORED where there is no loss; and where there is."""
    supervised = np.append(side.supervised[1:], False)
    targets = np.where(supervised, np.append(side.tokens[1:], 0), IGNORED)
    return targets.astype(np.int64), supervised


def _distinct(sides: Sequence[Rendered]) -> list[PatchedVisual]:
    return list({id(visual): visual for side in sides for visual in side.visuals}.values())


def _no_visuals() -> dict[str, torch.Tensor]:
    return {
        "patches": torch.zeros(0, 1),
        "grids": torch.zeros(0, 3, dtype=torch.int64),
        "spacing": torch.zeros(0, 3),
        "axis_kinds": torch.zeros(0, dtype=torch.int64),
        "kept": torch.zeros(0, dtype=torch.bool),
        "visual_tokens": torch.zeros(0, dtype=torch.int64),
    }
