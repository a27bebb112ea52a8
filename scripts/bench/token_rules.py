"""The rules that token_reduction.py compares, and how far a dropped token is from what stands for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medvlm.model.grid import Size3
from medvlm.model.processing import MedVLMProcessor, PatchedVisual
from medvlm.model.reduction import BoundedReduction, HuluMedReduction, as_columns, reduction_from, stand_ins
from medvlm.model.visual import Visual

DRIFT_SLICES, DRIFT_STEP = 20, 0.045


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One row of the table: a reduction of the processor, or blocks (z, y, x) of tokens that are averaged."""

    name: str
    reduction: dict[str, Any] | None = None
    block: Size3 | None = None


def rules(bounds: Sequence[float], cells: Sequence[int], budgets: Sequence[int]) -> list[Rule]:
    """The rows: nothing dropped, background, ours at each cell and bound, and at each budget, Hulu-Med's, M3D's."""
    found = [Rule(name="none"), Rule(name="background only", reduction={"bound": None})]
    for cell in cells:
        for bound in bounds:
            found.append(Rule(name=f"ours, cell {cell}, bound {bound:g}", reduction={"bound": bound, "cell": cell}))
        for budget in budgets:
            limited = {"bound": bounds[0], "cell": cell, "max_tokens": {"volume": budget}}
            found.append(Rule(name=f"ours, cell {cell}, at most {budget} tokens", reduction=limited))
    return [
        *found,
        Rule(name="Hulu-Med", reduction={"method": "hulu_med"}),
        Rule(name="M3D pooling 2 x 1 x 1", block=(2, 1, 1)),
        Rule(name="M3D pooling 2 x 2 x 2", block=(2, 2, 2)),
    ]


class RuleProcessor(MedVLMProcessor):
    """A saved processor under one rule, which cuts each visual once however many questions there are about it."""

    block: Size3 | None = None
    _cut: dict[int, tuple[Visual, PatchedVisual]]

    @classmethod
    def under(cls, rule: Rule, folder: Path, **settings: Any) -> RuleProcessor:
        """The processor of ``folder`` with the rule in the place of its own reduction, and other ``settings``."""
        processor: RuleProcessor = cls.from_pretrained(folder, reduction=rule.reduction, **settings)
        processor.block, processor._cut = rule.block, {}
        return processor

    def patch(self, visual: Visual) -> PatchedVisual:
        if id(visual) not in self._cut:
            patched = super().patch(visual)
            if self.block is not None:
                blocks = blocks_of(self.tokens_of(patched), self.block)
                first = np.zeros(len(blocks), dtype=bool)
                first[np.unique(blocks, return_index=True)[1]] = True
                patched = replace(patched, kept=first)
            # The visual is held too, so that its id is not given to another.
            self._cut[id(visual)] = visual, patched
        return self._cut[id(visual)][1]

    def tokens_of(self, patched: PatchedVisual) -> Size3:
        """Tokens along (z, y, x)."""
        return tuple(g // m for g, m in zip(patched.grid, self.merge, strict=True))  # type: ignore[return-value]


class PooledTokens(nn.Module):
    """A projector whose tokens are averaged in blocks; the mean stands at the first token of its block."""

    def __init__(self, projector: nn.Module, merge: Sequence[int], block: Size3) -> None:
        super().__init__()
        self.projector, self.merge, self.block = projector, merge, block

    def forward(self, features: Tensor, grids: Tensor, kept: Tensor, axis_kinds: Tensor) -> Tensor:
        """Shapes as in Projector.forward; ``kept`` is the first token of each block."""
        made = self.projector(features, grids, torch.ones_like(kept), axis_kinds)
        pooled, first = [], 0
        for grid in grids.tolist():
            size: Size3 = tuple(g // m for g, m in zip(grid, self.merge, strict=True))  # type: ignore[assignment]
            blocks = torch.from_numpy(blocks_of(size, self.block)).to(made.device)
            mine = made[first : first + len(blocks)]
            sums = mine.new_zeros(int(blocks.max()) + 1, mine.shape[1]).index_add(0, blocks, mine)
            pooled.append((sums / blocks.bincount()[:, None])[blocks[kept[first : first + len(blocks)]]])
            first += len(blocks)
        return torch.cat(pooled)


def blocks_of(tokens: Size3, block: Size3) -> np.ndarray:
    """(N,) int64: the number of the block of each token; the last block of an axis may be a part of one."""
    places = [np.arange(count) // size for count, size in zip(tokens, block, strict=True)]
    z, y, x = np.meshgrid(*places, indexing="ij")
    return ((z * (places[1][-1] + 1) + y) * (places[2][-1] + 1) + x).reshape(-1)


@dataclass(kw_only=True)
class Tally:
    """What one rule did to volumes.

    Attributes:
        background: tokens dropped as air or black; their error is not counted: nothing is to stand for them.
        cell_errors, voxel_errors: for every other dropped token, the largest difference of a cell, and of a voxel, to
            what stands for it, of channels in [0, 1].
    """

    made: int = 0
    kept: int = 0
    background: int = 0
    cell_errors: list[float] = field(default_factory=list)
    voxel_errors: list[float] = field(default_factory=list)

    def add(self, patched: PatchedVisual, processor: RuleProcessor, background: np.ndarray) -> None:
        """Count one volume; ``background`` (N,) is what "background only" drops of it."""
        size = processor.tokens_of(patched)
        patch: Size3 = tuple(processor.patch_size)  # type: ignore[assignment]
        count = len(patched.kept)
        self.made, self.kept = self.made + count, self.kept + patched.tokens
        gone = ~patched.kept
        rule = reduction_from(processor.reduction)
        if isinstance(rule, BoundedReduction):
            self.background += int((gone & background).sum())
            gone &= ~background
        else:
            rule = BoundedReduction()
        for values, errors in (
            (rule.columns(patched.patches, size, patch), self.cell_errors),
            (as_columns(patched.patches, size), self.voxel_errors),
        ):
            tokens = values.reshape(count, -1)
            if processor.block is not None:
                errors += pooling_errors(tokens, blocks_of(size, processor.block)).tolist()
            elif gone.any():
                instead = stand_ins(patched.kept, size)[gone]
                errors += (np.abs(tokens[gone] - tokens[instead]).max(axis=1) / 2).tolist()

    def row(self) -> dict[str, Any]:
        """JSON-ready."""
        row: dict[str, Any] = {
            "tokens_made": self.made,
            "tokens_kept": self.kept,
            "kept": self.kept / self.made,
            "background": self.background / self.made,
        }
        for name, errors in (("cell_error", self.cell_errors), ("voxel_error", self.voxel_errors)):
            row[f"{name}_max"] = max(errors, default=0.0)
            row[f"{name}_mean"] = float(np.mean(errors)) if errors else 0.0
        return row


def pooling_errors(tokens: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """(N,) largest difference in [0, 1] of each token (N, values) to the mean of its block."""
    means = np.zeros((int(blocks.max()) + 1, tokens.shape[1]))
    np.add.at(means, blocks, tokens)
    means /= np.bincount(blocks)[:, None]
    return np.abs(tokens - means[blocks]).max(axis=1) / 2


def drift_kept(rule: Rule) -> float:
    """Share of a slow change that is still seen at the end.

    A column of tokens brightens by DRIFT_STEP of the range, which is 0.09 in pixels from -1 to 1, with each of
    DRIFT_SLICES slices: what stands for the last token, less the first, over the whole change.
    """
    ramp = np.arange(DRIFT_SLICES, dtype=np.float32) * DRIFT_STEP
    columns = np.repeat(ramp[:, None, None] * 2 - 1, 2, axis=1)  # (slices, two columns, one value)
    if rule.block is not None:
        blocks = blocks_of((DRIFT_SLICES, 1, 1), (rule.block[0], 1, 1))
        return float(ramp[blocks == blocks.max()].mean() / ramp[-1])
    reduction = reduction_from(rule.reduction)
    if reduction is None:
        return 1.0
    if isinstance(reduction, HuluMedReduction):
        kept = reduction.keep(columns, "volume")
    else:
        kept = reduction.keep(columns, "volume", None)
    # The second column: Hulu-Med keeps the corner of every slice.
    last = stand_ins(kept, (DRIFT_SLICES, 1, 2))[-1]
    return float(ramp[last // 2] / ramp[-1])
