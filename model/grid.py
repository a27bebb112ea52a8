"""Voxels -> grid of patches -> number of visual tokens: the only place where they are counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from medvlm.model.visual import Kind

Size3 = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class GridRule:
    """How many patches a visual may have.

    Attributes:
        patch: voxels of a patch along (z or time, y, x).
        merge: patches that the projector merges into one visual token along each axis.
        max_patches: per kind, the most patches one visual may cost.
        max_depth: per kind, the most voxels along axis 0 (slices, frames) before anything else is shrunk.
        slices: "average" resamples a volume along z, and interpolates when it has fewer slices than whole patches need;
            "nearest" chooses slices, never one twice.
        pool, queries: of a projector that has them, see ``count_tokens``.
    """

    patch: Size3
    merge: Size3
    max_patches: dict[str, int]
    max_depth: dict[str, int]
    slices: Literal["average", "nearest"] = "average"
    pool: Size3 | None = None
    queries: dict[str, int] | None = None

    @property
    def factor(self) -> Size3:
        """Voxels along each axis that become one visual token."""
        return tuple(p * m for p, m in zip(self.patch, self.merge, strict=True))  # type: ignore[return-value]

    def target_size(self, size: Size3, kind: Kind) -> Size3:
        """The size in voxels to which a visual of ``size`` is resampled: whole tokens, within the budget.

        Nothing is cropped. A size over the budget shrinks in plane, keeping the aspect ratio, after axis 0 was
        held to ``max_depth``. Nothing is enlarged beyond the next whole token.

        Args:
            size: (depth, height, width) in voxels; depth 1 for an image.

        Raises:
            ValueError: when even one row of tokens per slice is over the budget; when slices are chosen, but are fewer
                than a token is thick.
        """
        factor, budget = self.factor, self.max_patches[kind]
        if kind == "image":
            depth = factor[0]
        elif kind == "volume" and self.slices == "nearest":
            depth = _chosen_slices(size[0], self.max_depth[kind], factor[0])
        else:
            depth = _whole(min(size[0], self.max_depth[kind]), factor[0])
        plane_budget = budget // math.ceil(depth / self.patch[0])
        least = self.merge[1] * self.merge[2]
        if plane_budget < least:
            raise ValueError(
                f"a {kind} of {depth} slices leaves {plane_budget} patches a slice of the budget {budget}, fewer than "
                f"one token ({least}); raise max_patches.{kind} or lower max_depth.{kind}"
            )
        height, width = _whole(size[1], factor[1]), _whole(size[2], factor[2])
        # A sliver is over the budget only because it is padded to a whole token: it must not be stretched.
        shrink = min(1.0, math.sqrt(plane_budget * self.patch[1] * self.patch[2] / (size[1] * size[2])))
        while (height // self.patch[1]) * (width // self.patch[2]) > plane_budget:
            height = _whole_down(size[1] * shrink, factor[1])
            width = _whole_down(size[2] * shrink, factor[2])
            shrink *= 0.98
        return depth, height, width

    def grid(self, size: Size3) -> Size3:
        """Patches along each axis of a visual that was resampled to ``size`` voxels."""
        return tuple(s // p for s, p in zip(size, self.patch, strict=True))  # type: ignore[return-value]

    def tokens(self, grid: Size3, kind: Kind | None = None) -> int:
        """Visual tokens that the projector makes of ``grid``; ``kind`` matters only when it has ``queries``."""
        return count_tokens(grid, kind, merge=self.merge, pool=self.pool, queries=self.queries)


def count_tokens(
    grid: Size3,
    kind: Kind | None,
    *,
    merge: Sequence[int],
    pool: Sequence[int] | None = None,
    queries: dict[str, int] | None = None,
) -> int:
    """Visual tokens that a projector makes of one visual.

    Args:
        grid: patches along (z or time, y, x); whole multiples of ``merge``.
        kind: of the visual; may be None when there are no ``queries``.
        merge: patches that are laid side by side and become one token.
        pool: patches along each axis that are averaged into one token; the last block may be a part of one.
        queries: per kind, how many tokens every visual becomes, whatever its grid.
    """
    if queries is not None:
        if kind is None:
            raise ValueError("the projector makes so many tokens of each kind of visual; say which kind this one is")
        return queries[kind]
    if pool is not None:
        return math.prod(math.ceil(g / p) for g, p in zip(grid, pool, strict=True))
    return math.prod(g // m for g, m in zip(grid, merge, strict=True))


def queries_of(value: int | dict[str, int]) -> dict[str, int]:
    """Visual tokens per kind of visual, from one number for all or one for each.

    Raises:
        ValueError: a kind is missing or unknown, or a number is below 1.
    """
    kinds = ("image", "volume", "video")
    counts = dict.fromkeys(kinds, value) if isinstance(value, int) else dict(value)
    if set(counts) != set(kinds) or not all(isinstance(n, int) and n > 0 for n in counts.values()):
        raise ValueError(
            f"projector queries are {value}; use one whole number above 0, or one for each of image, volume and video"
        )
    return counts


def _whole(length: float, factor: int) -> int:
    """The multiple of ``factor`` nearest to ``length``, at least one."""
    return max(1, round(length / factor)) * factor


def _whole_down(length: float, factor: int) -> int:
    return max(1, math.floor(length / factor + 1e-9)) * factor


def _chosen_slices(slices: int, limit: int, thickness: int) -> int:
    """How many of ``slices`` to choose: whole tokens of ``thickness``, at most ``limit``, each slice at most once."""
    if slices < thickness:
        raise ValueError(
            f"a patch larger than the volume: {slices} slices, but one token is {thickness} slices thick (patch_size "
            "times merge along z), and slices: nearest shows none twice; use slices: average, which interpolates, or a "
            "thinner patch_size or merge"
        )
    return max(1, min(slices, limit) // thickness) * thickness
