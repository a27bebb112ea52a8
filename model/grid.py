"""Voxels -> grid of patches -> number of visual tokens: the only place where they are counted."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
    """

    patch: Size3
    merge: Size3
    max_patches: dict[str, int]
    max_depth: dict[str, int]

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
            ValueError: when even one row of tokens per slice is over the budget.
        """
        factor, budget = self.factor, self.max_patches[kind]
        if kind == "image":
            depth = factor[0]
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

    def tokens(self, grid: Size3) -> int:
        """Visual tokens that the decoder sees for ``grid``."""
        return math.prod(g // m for g, m in zip(grid, self.merge, strict=True))


def _whole(length: float, factor: int) -> int:
    """The multiple of ``factor`` nearest to ``length``, at least one."""
    return max(1, round(length / factor)) * factor


def _whole_down(length: float, factor: int) -> int:
    return max(1, math.floor(length / factor + 1e-9)) * factor
