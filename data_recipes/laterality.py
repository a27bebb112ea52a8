"""The door for augmentations: none may turn a picture around whose text names a side."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product

import numpy as np

from medvlm.model.geometry import resize_volume
from medvlm.model.visual import Image, Visual, Volume, kind_of

Transform = Callable[[Visual, np.random.Generator], Visual]
"""An augmentation: all that it draws at random comes from the generator, in an order that the values do not change."""

_STEMS = {
    "en": r"left\w*|right\w*|bilat[eé]r\w*|unilateral\w*|ipsilateral\w*|contralateral\w*|lateral\w*|medial\w*"
    r"|both sides|(?:anti|counter)?clockwise|levo\w+|sinist\w+|dextr\w+|[lr](?:ll|ul|ml|uq|lq)|mirror\w*|situs",
    "es": r"izquierd\w+|derech\w+",
    "fr": r"gauches?|droite?s?",
    "de": r"links\w*|rechts\w*|linke\w*|rechte\w*|beid(?:seit|seits)\w*|seiten\w*",
    "pt": r"esquerd\w+|direit\w+",
    "it": r"sinistr\w+|destr\w+",
    "ru": r"лев\w+|прав\w+|слева|справа|двусторонн\w+",
}
_BOX = re.compile(r"<box>|<\|box_start\|>|bbox_2d", re.IGNORECASE)  # the numbers of a box name a side too
# Letters and digits end a word here, an underscore does not.
_WORDS = re.compile(rf"(?<![^\W_])(?:{'|'.join(_STEMS.values())})(?![^\W_])", re.IGNORECASE)
_SHORT = re.compile(r"(?<![^\W_])(?:L|R|LT|RT|Lt|Rt|OD|OS|LV|RV|LA|RA|RCA|LCA|LAD|izq|der)(?![^\W_])")
_CHINESE = re.compile("[左右双雙]|[两兩单單][侧側]")
"""Words of a side in the languages that samples are served in. Chinese has no spaces, so its signs stand for words.
Too many words are harmless (a turned picture is left out), too few are not: "right" may also mean correct."""

LIKENESS = 0.6
"""Least correlation with the probe at which its orientation is believed; a probe that is lost counts as turned."""

_EDGE, _SEED = 16, 57


def side_word(text: str) -> str | None:
    """The first word in ``text`` that names a side of the body or of the picture; None when there is none."""
    found = _WORDS.search(text) or _SHORT.search(text) or _CHINESE.search(text) or _BOX.search(text)
    return found.group() if found else None


def probe_like(visual: Visual) -> Visual:
    """A small visual of the kind, unit and range of ``visual`` that looks different from every side.

    Values are smooth and reach to the border, so that shifts, crops, zooms and noise leave its orientation readable.
    """
    if isinstance(visual, Volume):
        return replace(visual, voxels=_scaled(_pattern((_EDGE, _EDGE, _EDGE)), visual.voxels))
    if isinstance(visual, Image):
        pattern = np.repeat(_pattern((_EDGE, _EDGE))[None], len(visual.pixels), axis=0)
        return replace(visual, pixels=_scaled(pattern, visual.pixels))
    frames, channels = visual.frames.shape[:2]
    pattern = _pattern((_EDGE, _EDGE, _EDGE))[np.arange(frames) * _EDGE // frames]
    return replace(visual, frames=_scaled(np.repeat(pattern[:, None], channels, axis=1), visual.frames))


def _pattern(shape: tuple[int, ...]) -> np.ndarray:
    """Waves of low frequency with fixed random weights, in [0, 1].

    The seed is one for which all turned and mirrored copies are little alike, also as negatives.
    """
    rng = np.random.default_rng(_SEED)
    total = np.zeros(shape)
    axes = [np.pi * (np.arange(n) + 0.5) / n for n in shape]
    for waves in product(range(3), repeat=len(shape)):
        wave = np.array(rng.normal() if any(waves) else 0.0)
        for axis, number in zip(axes, waves, strict=True):
            wave = np.multiply.outer(wave, np.cos(number * axis))
        total += wave
    total -= total.min()
    return (total / total.max()).astype(np.float32)


def _scaled(pattern: np.ndarray, values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    return (low + pattern * (high - low if high > low else 1.0)).astype(np.float32)


def _space(visual: Visual) -> np.ndarray:
    """(z or time, y, x) without colour; an image has no first axis."""
    if isinstance(visual, Volume):
        return visual.voxels
    return visual.pixels.mean(axis=0) if isinstance(visual, Image) else visual.frames.mean(axis=1)


def orientation_change(before: Visual, after: Visual) -> tuple[tuple[int, ...], tuple[bool, ...]] | None:
    """Which turn by right angles, or mirroring, makes ``after`` most like ``before``; None when nothing does.

    Returns:
        (permutation, flips) as model.geometry.axis_permutation_and_flips gives them: of ``before``, axis by axis.
    """
    one, other = (_cube(_space(visual)) for visual in (before, after))
    if one.ndim != other.ndim or not other.any():
        return None
    best, found = LIKENESS, None
    for order in permutations(range(one.ndim)):
        for flips in product((False, True), repeat=one.ndim):
            turned = one.transpose(order)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
            # A negative is no mirror image: only the size of the likeness counts.
            likeness = abs(float((turned * other).mean()))
            if likeness > best + 1e-6:
                best, found = likeness, (order, flips)
    return found


def _cube(values: np.ndarray) -> np.ndarray:
    """Resized to _EDGE along each axis, mean 0 and standard deviation 1; all 0 when constant."""
    flat = values if values.ndim == 3 else values[None]
    small = resize_volume(flat, (_EDGE if values.ndim == 3 else 1, _EDGE, _EDGE)).astype(np.float64)
    small = small if values.ndim == 3 else small[0]
    small = small - small.mean()
    deviation = small.std()
    return small / deviation if deviation > 1e-9 else np.zeros_like(small)


def turns(transform: Transform, like: Visual, seed: int) -> bool:
    """Whether ``transform``, with this seed, turns or mirrors visuals such as ``like``, or makes them unreadable."""
    probe = probe_like(like)
    after = transform(probe, np.random.default_rng(seed))
    axes = _space(probe).ndim
    return orientation_change(probe, after) != (tuple(range(axes)), (False,) * axes)


def mirrors(transform: Transform, like: Visual, draws: int = 64) -> bool:
    """Whether any of ``draws`` seeds makes ``transform`` turn or mirror visuals such as ``like``."""
    return any(turns(transform, like, seed) for seed in range(draws))


@dataclass(frozen=True, kw_only=True)
class Augmenter:
    """Applies augmentations, and refuses those that make a text wrong; training has none today.

    Whoever adds one passes it through here: tests/test_laterality.py reads training packs and fails when one comes out
    turned whose text names a side. Each application to such a sample is checked, not only the transform: the same draw
    is applied to a probe first, so that one which mirrors once in a thousand times is caught that time. The size may
    not change, because packs are planned before. Boxes and other places in the text are not moved along: a sample that
    has them must not be shifted either, which this class does not check.
    """

    transforms: Sequence[Transform]

    def __call__(self, visual: Visual, text: str, rng: np.random.Generator) -> Visual:
        """``visual`` after every transform.

        Raises:
            ValueError: a transform turned or mirrored it although ``text`` names a side, or changed kind or size.
        """
        word = side_word(text)
        for transform in self.transforms:
            name = getattr(transform, "__name__", type(transform).__name__)
            seed = int(rng.integers(2**62))
            if word is not None and turns(transform, visual, seed):
                raise ValueError(
                    f"the augmentation {name} turns or mirrors a {kind_of(visual)} whose text says {word!r}: the "
                    "answer would be wrong; leave it out, or keep it well below 45 degrees"
                )
            after = transform(visual, np.random.default_rng(seed))
            if kind_of(after) != kind_of(visual) or _space(after).shape != _space(visual).shape:
                raise ValueError(
                    f"the augmentation {name} changes kind or size of a {kind_of(visual)}, but packs are planned "
                    "before it; move the content within its grid"
                )
            visual = after
        return visual
