"""Several tests at once: what is left of each when they are counted together."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values after Holm's step-down correction (Holm 1979), in the order given.

    The smallest of m is multiplied by m, the next by m - 1 and so on; none falls below one that was smaller before.
    The chance that any true null hypothesis is rejected is then at most the level, however the tests depend on each
    other.

    Raises:
        ValueError: a value is no probability.
    """
    if any(not 0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values lie between 0 and 1, got {[p for p in p_values if not 0 <= p <= 1]}")
    adjusted = [1.0] * len(p_values)
    reached = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = reached
    return adjusted
