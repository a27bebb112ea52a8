"""Which visual tokens the decoder sees: background, repetition along z, and a budget.

Decided by the processor from the patches that the encoder reads, before anything is batched: lengths are exact when
packs are planned, an answer does not depend on the batch, and inference does what training did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from medvlm.model.grid import Size3
from medvlm.model.visual import Kind

KINDS: tuple[Kind, ...] = ("image", "volume", "video")
_BUDGET_STEPS = 14
"""Bisections of the bound when a budget is tight: the bound found is within 1e-4 of the range of the channels."""


@dataclass(frozen=True, kw_only=True)
class BoundedReduction:
    """Drop background, then what repeats the last kept token of its column.

    A column is the tokens at one (y, x), from the first to the last along z (or time). In this order, the first token
    that is not background is kept; a later one is dropped when no cell of it, in no channel, differs by more than
    ``bound`` from the same cell of the LAST KEPT token of the column. So every token dropped for repetition lies within
    the bound of the kept token that stands for it, however slowly the content drifts; comparing with the previous slice
    has no such bound. A cell is the mean over ``cell`` x ``cell`` voxels and the depth of a patch: single voxels differ
    by noise alone, and the mean of a whole token would lose what is smaller.

    Attributes:
        background: drop tokens that are air or black and connected to the border; see ``background_tokens``.
        bound: largest difference of a cell of a dropped token to the one that stands for it, of channels in [0, 1];
            None keeps every repetition.
        cell: voxels of a cell along y and x; must divide the patch. 1 compares along y and x voxel by voxel.
        max_tokens: per kind, the most tokens of one visual. Over it the bound of this visual is raised to about the
            smallest that fits, so those stay that differ most from the last kept one. It must hold one slice, because
            each column keeps its first.
        air_hu: below it a voxel in HU is air.
        black: at or below it in every channel, a voxel in any other unit is black.
    """

    background: bool = True
    bound: float | None = 0.1
    cell: int = 4
    max_tokens: Mapping[str, int] = field(default_factory=dict)
    air_hu: float = -900.0
    black: float = 0.02

    def __post_init__(self) -> None:
        if self.bound is not None and not 0 <= self.bound < 1:
            raise ValueError(f"reduction.bound is {self.bound}; channels are in [0, 1]: choose 0 <= bound < 1 or null")
        if self.cell < 1:
            raise ValueError(f"reduction.cell is {self.cell}; choose a number of voxels that divides the patch")
        if not 0 <= self.black < 1:
            raise ValueError(f"reduction.black is {self.black}; channels are in [0, 1], so choose 0 <= black < 1")
        for kind, count in self.max_tokens.items():
            if kind not in KINDS:
                raise ValueError(f"reduction.max_tokens has the unknown kind {kind!r}; use {', '.join(KINDS)}")
            if type(count) is not int or count < 1:
                raise ValueError(f"reduction.max_tokens.{kind} is {count}; one token is always kept: write 1 or more")

    def check_patch(self, patch: Size3) -> None:
        """Raise ValueError when cells do not fill a patch of (z, y, x) voxels."""
        _, h, w = patch
        if h % self.cell or w % self.cell:
            raise ValueError(
                f"reduction.cell is {self.cell}, which does not divide a patch of {h} x {w} voxels; choose a divisor"
            )

    def columns(self, patches: np.ndarray, tokens: Size3, patch: Size3) -> np.ndarray:
        """What ``keep`` compares: (T, columns, cells of one token) in [-1, 1].

        Args:
            patches: (P, patch_dim) in [-1, 1], the patches of one token together, tokens in (z, y, x) order.
            tokens: tokens along (z or time, y, x).
            patch: voxels of a patch along (z, y, x).

        Raises:
            ValueError: ``cell`` does not divide the patch.
        """
        self.check_patch(patch)
        t, h, w = patch
        if t > 1 or self.cell > 1:
            split = patches.reshape(len(patches), -1, t, h // self.cell, self.cell, w // self.cell, self.cell)
            patches = split.mean(axis=(2, 4, 6))
        return as_columns(patches, tokens)

    def keep(self, columns: np.ndarray, kind: Kind, background: np.ndarray | None) -> np.ndarray:
        """Which tokens stay.

        Args:
            columns: (T, columns, values) in [-1, 1].
            kind: of the visual: chooses the budget.
            background: (N,) bool from ``background_tokens``, or None.

        Returns:
            (N,) bool with at least one True.

        Raises:
            ValueError: the budget is smaller than one slice.
        """
        empty = np.zeros(columns.shape[:2], dtype=bool) if background is None else background.reshape(columns.shape[:2])
        kept = ~empty if self.bound is None else _unlike_last_kept(columns, empty, self.bound)
        budget = self.max_tokens.get(kind)
        if budget is not None and kept.sum() > budget:
            if budget < columns.shape[1]:
                raise ValueError(
                    f"reduction.max_tokens.{kind} is {budget}, fewer than the {columns.shape[1]} tokens of one slice; "
                    f"raise it, or lower max_patches.{kind} so that a slice has fewer"
                )
            kept = _within_budget(columns, empty, budget, self.bound or 0.0)
        return _at_least_one(kept.reshape(-1))


@dataclass(frozen=True, kw_only=True)
class HuluMedReduction:
    """The rule of Hulu-Med's code, kept so that it can be compared (arXiv:2510.08668; ``_get_compression_mask``).

    The first slice is kept whole; a later token is kept when its mean absolute difference to the same place of the
    PREVIOUS slice is over ``threshold``, on pixels in [-1, 1]; a slice that keeps none keeps its first token. Images
    are kept whole. Here a slice is one layer of tokens, which is as many slices as a token is thick.
    """

    threshold: float = 0.1

    def __post_init__(self) -> None:
        if not self.threshold >= 0:
            raise ValueError(f"reduction.threshold is {self.threshold}; choose 0 or more (Hulu-Med: 0.1)")

    def columns(self, patches: np.ndarray, tokens: Size3, patch: Size3) -> np.ndarray:
        """(T, columns, voxels of one token) in [-1, 1]; arguments as in BoundedReduction.columns."""
        return as_columns(patches, tokens)

    def keep(self, columns: np.ndarray, kind: Kind, background: np.ndarray | None = None) -> np.ndarray:
        """Which tokens stay; arguments as in BoundedReduction.keep, ``background`` is not looked at."""
        kept = np.ones(columns.shape[:2], dtype=bool)
        if kind == "image":
            return kept.reshape(-1)
        for z in range(1, len(columns)):
            kept[z] = np.abs(columns[z] - columns[z - 1]).mean(axis=1) > self.threshold
            kept[z, 0] |= not kept[z].any()
        return kept.reshape(-1)


Reduction = BoundedReduction | HuluMedReduction

METHODS: dict[str, type[BoundedReduction] | type[HuluMedReduction]] = {
    "bounded": BoundedReduction,
    "hulu_med": HuluMedReduction,
}


def reduction_from(settings: Mapping[str, Any] | None) -> Reduction | None:
    """``{"method": "bounded" | "hulu_med", ...its fields}`` -> the rule; None -> None.

    Raises:
        ValueError: an unknown method or field, or a value out of range; names the key and the mend.
    """
    if settings is None:
        return None
    method = settings.get("method", "bounded")
    if method not in METHODS:
        raise ValueError(f"reduction.method is {method!r}; use {' or '.join(METHODS)}")
    values = {key: value for key, value in settings.items() if key != "method"}
    allowed = [f.name for f in fields(METHODS[method])]
    unknown = sorted(set(values) - set(allowed))
    if unknown:
        raise ValueError(f"reduction.{unknown[0]} is not a setting of {method!r}; use {', '.join(allowed)}")
    return METHODS[method](**values)


def as_columns(patches: np.ndarray, tokens: Size3) -> np.ndarray:
    """(P, values of one patch) -> (T, columns, values of one token); a view."""
    depth, height, width = tokens
    return patches.reshape(depth, height * width, -1)


def background_tokens(brightest: np.ndarray, level: float) -> np.ndarray:
    """Tokens that hold nothing and are connected to the border of their slice.

    A token is empty when its brightest voxel is at or below ``level``. It is background when, in its own layer along z,
    a path of empty tokens leads to the edge of the picture over shared sides. So lung, bowel gas and the airways stay:
    the body encloses them. Layers are judged one by one, because through the first and last slice of a scan, and
    through the airways, the inside of the body is connected with the outside.

    Args:
        brightest: (T, H, W) largest value in each token: HU, or the brightest channel.
        level: in the same unit.

    Returns:
        (T * H * W,) bool, in the order of the tokens.
    """
    empty = brightest <= level
    outside = np.zeros_like(empty)
    for edge in ((0, slice(None)), (-1, slice(None)), (slice(None), 0), (slice(None), -1)):
        outside[:, *edge] = empty[:, *edge]
    while True:
        grown = outside.copy()
        grown[:, 1:] |= outside[:, :-1]
        grown[:, :-1] |= outside[:, 1:]
        grown[:, :, 1:] |= outside[:, :, :-1]
        grown[:, :, :-1] |= outside[:, :, 1:]
        grown &= empty
        if (grown == outside).all():
            return outside.reshape(-1)
        outside = grown


def brightest_in_tokens(array: np.ndarray, factor: Size3) -> np.ndarray:
    """(C, D, H, W) -> (T, H, W): the largest value over the channels and voxels of each token of ``factor`` voxels."""
    (t, h, w), (_, depth, height, width) = factor, array.shape
    blocks = array.reshape(len(array), depth // t, t, height // h, h, width // w, w)
    return blocks.max(axis=(0, 2, 4, 6))


def stand_ins(kept: np.ndarray, tokens: Size3) -> np.ndarray:
    """(N,) int64: for each token the kept one that stands for it: itself, or the last kept before it in its column; -1
    where there is none (background before anything was kept)."""
    depth = tokens[0]
    layers = kept.reshape(depth, -1)
    index = np.where(layers, np.arange(kept.size).reshape(depth, -1), -1)
    return np.maximum.accumulate(index, axis=0).reshape(-1)


def _unlike_last_kept(columns: np.ndarray, empty: np.ndarray, bound: float) -> np.ndarray:
    """(T, columns) bool by the rule of BoundedReduction."""
    kept = np.zeros(empty.shape, dtype=bool)
    reference = np.full(columns.shape[1:], np.nan, dtype=columns.dtype)
    for z, layer in enumerate(columns):
        # Patches are 2 p - 1. A column without a kept token holds NaN, and nothing is within a bound of NaN.
        alike = np.abs(layer - reference).max(axis=1) <= 2 * bound
        kept[z] = ~alike & ~empty[z]
        reference[kept[z]] = layer[kept[z]]
    return kept


def _within_budget(columns: np.ndarray, empty: np.ndarray, budget: int, bound: float) -> np.ndarray:
    """The reduction with about the smallest bound that keeps at most ``budget`` tokens.

    With a bound of 1 each column keeps one token, which the caller has made sure to fit.
    """
    low, high = bound, 1.0
    best = _unlike_last_kept(columns, empty, high)
    for _ in range(_BUDGET_STEPS):
        middle = (low + high) / 2
        kept = _unlike_last_kept(columns, empty, middle)
        if kept.sum() <= budget:
            high, best = middle, kept
        else:
            low = middle
    return best


def _at_least_one(kept: np.ndarray) -> np.ndarray:
    if not kept.any():
        kept[0] = True
    return kept
