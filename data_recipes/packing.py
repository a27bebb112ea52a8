"""Samples -> packs under budgets of tokens, patches and cost; a pack -> PackedBatch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from math import inf
from typing import Any

import numpy as np
import torch

from medvlm.data_recipes.cost import COUNT_TOKENS, Cost
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.feature_cache import NamedVisual
from medvlm.data_recipes.filling import fill
from medvlm.model.batch import IGNORED, PackedBatch
from medvlm.model.processing import PatchedVisual, Rendered, visual_tensors

Sizes = Mapping[str, np.ndarray]
"""Name of a field of Length -> (n,) int64: what n samples cost."""


@dataclass(frozen=True, kw_only=True)
class Length:
    """What one sample costs: decoder tokens, encoder patches, and supervised tokens.

    ``visual_tokens`` are those that the decoder sees of its visuals, out of ``visual_tokens_made``;
    ``patches_squared`` is the sum of the squares of the patches of each visual.
    """

    tokens: int
    patches: int
    supervised: int
    visual_tokens: int = 0
    visual_tokens_made: int = 0
    patches_squared: int = 0


FIELDS = tuple(field.name for field in fields(Length))


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a pack may hold.

    Attributes:
        tokens, patches: most of them.
        cost: most of what ``weights`` count; None: no limit.
        weights: what a sample costs; ranks get packs of like cost in any case.
    """

    tokens: int
    patches: int
    cost: float | None = None
    weights: Cost = COUNT_TOKENS

    def over(self, sizes: Sizes) -> np.ndarray:
        """(n,) whether ``check`` would refuse each sample."""
        over = (sizes["tokens"] > self.tokens) | (sizes["patches"] > self.patches) | (sizes["supervised"] == 0)
        return over if self.cost is None else over | (self.weights.of(sizes) > self.cost)

    def check(self, length: Length, *, where: str) -> None:
        """Raise BadSample when a sample alone is over a budget, or trains nothing."""
        if length.tokens > self.tokens or length.patches > self.patches:
            raise BadSample(
                f"{length.tokens} tokens and {length.patches} patches, over the budget of {self.tokens} tokens and "
                f"{self.patches} patches in a pack",
                where=where,
                mend="raise data.tokens_per_pack or data.patches_per_pack, or lower the processor's max_patches; "
                "processor.reduction makes fewer tokens too",
            )
        if length.supervised == 0:
            raise BadSample("no token carries loss", where=where, mend="give the last assistant turn an answer")
        cost = float(self.weights.of(sizes_of([length]))[0])
        if self.cost is not None and cost > self.cost:
            raise BadSample(
                f"a cost of {cost:.6g} ({length.tokens} tokens and {length.patches} patches), over the budget of "
                f"{self.cost:.6g} in a pack",
                where=where,
                mend="raise data.cost_per_pack or remove it, or lower the processor's max_patches",
            )


def sizes_of(lengths: Iterable[Length]) -> dict[str, np.ndarray]:
    """Lengths as columns."""
    table = np.array([astuple(length) for length in lengths], np.int64).reshape(-1, len(FIELDS))
    return dict(zip(FIELDS, table.T, strict=True))


def pack(sizes: Sizes, limits: Limits) -> list[list[int]]:
    """Fill packs; samples are atomic, none is cut or dropped.

    Packs are alike in cost as far as the samples allow, and stand in such an order that neighbours are as like as can
    be, the last and the first included: costs rise over every second pack and fall over the others.

    Args:
        sizes: of n samples.

    Returns:
        Packs of positions from 0 to n - 1.

    Raises:
        BadSample: one sample alone is over a budget; the loader quarantines such samples before.
    """
    over = limits.over(sizes)
    if over.any():
        place = int(over.argmax())
        length = Length(**{name: int(sizes[name][place]) for name in FIELDS})
        limits.check(length, where=f"sample number {place}")
    costs = limits.weights.of(sizes)
    most = inf if limits.cost is None else limits.cost
    packs = fill(sizes["tokens"], sizes["patches"], costs, (limits.tokens, limits.patches, most))
    order = np.argsort(sums(costs, packs), kind="stable").tolist()
    return [packs[at] for at in (*order[::2], *order[1::2][::-1])]


def sums(costs: np.ndarray, packs: Sequence[Sequence[int]]) -> np.ndarray:
    """(packs,) what the members of each pack cost together; added one after the other, so alike on all machines."""
    values = costs.tolist()
    return np.array([sum(values[index] for index in members) for members in packs], np.float64)


def length_of(sides: Sequence[Rendered]) -> Length:
    """Cost of a sample: its sides lie in one pack, and a visual that they share is encoded once."""
    visuals = _distinct(sides)
    return Length(
        tokens=sum(len(side.tokens) for side in sides),
        patches=sum(len(visual.patches) for visual in visuals),
        supervised=min(int(_shifted(side)[1].sum()) for side in sides),
        visual_tokens=sum(visual.tokens for visual in visuals),
        visual_tokens_made=sum(len(visual.kept) for visual in visuals),
        patches_squared=sum(len(visual.patches) ** 2 for visual in visuals),
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
        **_visual_fields(visuals),
    )


def _visual_fields(visuals: list[PatchedVisual]) -> dict[str, Any]:
    """What a pack holds of its visuals; of those whose features are known no patches."""
    if not visuals:
        return _no_visuals()
    if not isinstance(visuals[0], NamedVisual):
        return visual_tensors(visuals)
    named = [visual for visual in visuals if isinstance(visual, NamedVisual)]
    columns = max((v.patches.shape[1] for v in named if v.features is None), default=1)
    laid = [v if v.features is None else v.bare(columns) for v in named]
    return {**visual_tensors(laid), "named": tuple(v.bare() for v in named)}


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
