"""The running mean that curves are drawn with."""

from __future__ import annotations

from collections.abc import Sequence


def running_mean(values: Sequence[float]) -> list[float]:
    """Exponential mean that forgets with 20 / length: a twentieth of the curve is remembered."""
    keep = max(0.0, 1 - 20 / max(20, len(values)))
    smooth = [values[0]]
    for value in values[1:]:
        smooth.append(keep * smooth[-1] + (1 - keep) * value)
    return smooth
