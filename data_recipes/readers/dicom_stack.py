"""Slices to a volume: sorted along the normal, checked for gaps, duplicates and mixtures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers.dicom_header import Plane

GAP_TOLERANCE = 0.1
"""A distance between neighbours may differ from the median one by this share: positions are stored with few
decimals. A missing slice differs by 1."""


def require_alike(planes: Sequence[Plane], where: Path) -> None:
    """Refuse fewer than two slices, and slices of different size, spacing or orientation.

    Raises:
        BadSample: names both sizes (or spacings, orientations) and one slice of the rarer kind.
    """
    if len(planes) < 2:
        raise BadSample(
            f"{len(planes)} slice(s); a volume needs at least 2",
            where=str(where),
            mend="give the folder of the whole series, or read the file as an image",
        )
    traits: tuple[tuple[str, list], ...] = (
        ("sizes", [p.size for p in planes]),
        ("pixel spacings", [tuple(round(s, 3) for s in p.spacing) for p in planes]),
        ("orientations", _orientation_groups(planes)),
    )
    for what, key in traits:
        kinds = Counter(key).most_common()
        if len(kinds) > 1:
            rare = planes[key.index(kinds[-1][0])].name
            raise BadSample(
                f"slices of {len(kinds)} {what}: {kinds[0][1]} of {kinds[0][0]}, {kinds[-1][1]} of {kinds[-1][0]} "
                f"(such as {rare}); one is expected",
                where=str(where),
                mend="move the other slices (often a localizer or a reformat) to a folder of their own",
            )


def _orientation_groups(planes: Sequence[Plane]) -> list[tuple[float, ...]]:
    """For each slice the direction cosines of the first slice that is parallel to it within 0.6 degrees."""
    found: list[np.ndarray] = []
    named: list[tuple[float, ...]] = []
    for plane in planes:
        cosines = np.concatenate((plane.right, plane.down))
        match = next((f for f in found if np.abs(f - cosines).max() < 0.01), None)
        if match is None:
            match = cosines
            found.append(cosines)
        named.append(tuple(float(c) for c in np.round(match, 4)))
    return named


def order_along_normal(planes: Sequence[Plane], where: Path, *, allow_gaps: bool) -> tuple[list[int], np.ndarray]:
    """Sort slices by their position along the slice normal.

    Args:
        planes: alike slices, in any order.
        where: the series, named in complaints.
        allow_gaps: accept uneven distances, which the caller then resamples.

    Returns:
        (order, offsets): indices into ``planes``, and their sorted positions in mm along right x down.

    Raises:
        BadSample: two slices at one position; uneven distances when not allowed. Names both slices.
    """
    normal = np.cross(planes[0].right, planes[0].down)
    along = np.array([float(plane.position @ normal) for plane in planes])
    order = [int(i) for i in np.argsort(along, kind="stable")]
    offsets = along[order]
    gaps = np.diff(offsets)
    median = float(np.median(gaps))
    closest = int(np.argmin(gaps))
    if gaps[closest] < max(0.01 * median, 1e-3):
        same = int((gaps < max(0.01 * median, 1e-3)).sum())
        raise BadSample(
            f"{planes[order[closest]].name} and {planes[order[closest + 1]].name} lie at one position "
            f"({offsets[closest]:.3f} mm along the normal), and so do {same} pairs of {len(planes)} slices",
            where=str(where),
            mend="keep one time point, echo or copy per folder",
        )
    if not allow_gaps:
        _require_even(planes, order, offsets, median, where)
    return order, offsets


def _require_even(planes: Sequence[Plane], order: list[int], offsets: np.ndarray, median: float, where: Path) -> None:
    gaps = np.diff(offsets)
    grid = np.linspace(offsets[0], offsets[-1], len(offsets))
    worst = int(np.argmax(np.abs(gaps - median)))
    if abs(gaps[worst] - median) <= GAP_TOLERANCE * median and np.abs(offsets - grid).max() < 0.5 * median:
        return
    uneven = int((np.abs(gaps - median) > GAP_TOLERANCE * median).sum())
    before, after = planes[order[worst]].name, planes[order[worst + 1]].name
    raise BadSample(
        f"{before} and {after} are {gaps[worst]:.3f} mm apart, where the median distance is {median:.3f} mm; "
        f"{uneven} of {len(gaps)} distances differ: a slice is missing or the spacing changes",
        where=str(where),
        mend="complete the series; where the spacing changes on purpose, set options.resample_gaps to true",
    )


def resample_even(voxels: np.ndarray, offsets: np.ndarray, where: Path) -> tuple[np.ndarray, float]:
    """Interpolate slices linearly to even distances, the smallest that occurs.

    Args:
        voxels: (D, H, W), slices in ascending ``offsets``.
        offsets: (D,) mm.

    Returns:
        The new voxels and their spacing in mm.

    Raises:
        BadSample: the smallest distance would make more than eight times as many slices.
    """
    step = float(np.diff(offsets).min())
    count = int(np.floor((offsets[-1] - offsets[0]) / step + 1e-6)) + 1
    if count > 8 * len(offsets):
        raise BadSample(
            f"distances from {step:.3f} to {float(np.diff(offsets).max()):.3f} mm would need {count} slices from "
            f"{len(offsets)}",
            where=str(where),
            mend="leave out the slices that lie too close, or the series",
        )
    targets = offsets[0] + step * np.arange(count)
    upper = np.clip(np.searchsorted(offsets, targets, side="left"), 1, len(offsets) - 1)
    share = (targets - offsets[upper - 1]) / (offsets[upper] - offsets[upper - 1])
    even = np.empty((count, *voxels.shape[1:]), dtype=np.float32)
    for k in range(count):
        part = np.float32(min(max(share[k], 0.0), 1.0))
        even[k] = voxels[upper[k] - 1] * (1 - part) + voxels[upper[k]] * part
    return even, step
