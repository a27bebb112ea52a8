"""What holds a training up, in one line: where the time goes, and what to change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

PHASES = {
    "data": "waits for data",
    "ranks": "waits for other processes",
    "prepare": "prepares the step",
    "to_device": "copies to the device",
    "compute": "forward and backward",
    "optimizer": "updates weights",
    "save": "saves",
    "evaluate": "answers questions",
    "other": "the rest",
}
"""Phases of a step, in the order in which they are shown, and what the process does in each."""

_HOLDS_UP = {
    "data": (0.10, "loader bound", "waits for data: raise data.workers or set data.cache: true"),
    "ranks": (
        0.15,
        "held up by other processes",
        "waits for them: their data is slower or their packs are larger; raise data.workers, or packs_per_step",
    ),
    "prepare": (
        0.50,
        "bound by preparation",
        "prepares steps: in reinforcement the model writes answers (shorten max_new_tokens), in a contrastive stage "
        "all pairs are embedded once more",
    ),
    "to_device": (0.10, "transfer bound", "copies packs to the device: lower data.patches_per_pack, or cache features"),
    "optimizer": (
        0.30,
        "optimizer bound",
        "updates weights: raise packs_per_step, train fewer parameters, or turn engine.offload off",
    ),
    "save": (0.10, "saving bound", "saves states: raise save_every, or save to a faster disk"),
    "evaluate": (
        0.25,
        "bound by evaluation",
        "answers questions: raise evaluate_every, or lower evaluation.samples_per_manifest",
    ),
}
"""Phase -> (share of the time from which on it is worth a change, verdict, what it does and the mend)."""


def verdict(phases: Mapping[str, float], mfu: float | None = None) -> str:
    """One line on ``phases`` (seconds); the phase that is furthest over its share is named, else computing is.

    Args:
        mfu: model FLOPs utilisation of that time, when known.
    """
    whole = sum(phases.values())
    if whole <= 0:
        return "nothing was measured"
    shares = {name: seconds / whole for name, seconds in phases.items()}
    over = {name: shares.get(name, 0.0) / rule[0] for name, rule in _HOLDS_UP.items()}
    worst = max(over, key=lambda name: over[name])
    if over[worst] >= 1:
        _, title, advice = _HOLDS_UP[worst]
        return f"{title}: {shares[worst]:.0%} of the time {advice}"
    told = "" if mfu is None else f", MFU {mfu:.1%}"
    return f"compute bound: {shares.get('compute', 0.0):.0%} of the time is forward and backward{told}"


def verdict_of_rows(rows: Iterable[Mapping[str, Any]]) -> str:
    """The verdict on rows of metrics.jsonl; the first step, which warms up, is left out when there are others."""
    told = list(rows)
    told = told[1:] if len(told) > 1 else told
    phases, mfu = sums_of_rows(told)
    return verdict(phases, mfu)


def sums_of_rows(rows: Iterable[Mapping[str, Any]]) -> tuple[dict[str, float], float | None]:
    """Seconds of each phase over ``rows``, and the MFU of all that time; None when no row tells one."""
    phases: dict[str, float] = {}
    used = seconds = 0.0
    for row in rows:
        for name, value in (row.get("phases") or {}).items():
            phases[name] = phases.get(name, 0.0) + value
        if row.get("mfu") is not None:
            used += row["mfu"] * row["seconds"]
            seconds += row["seconds"]
    return phases, used / seconds if seconds else None
