"""Which patient belongs to training and which to test, decided by a hash and never by the order of files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import get_args

from medvlm.data_recipes.sample import Split


def _rank(patient_id: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{patient_id}".encode()).hexdigest()


def split_patients(patients: Iterable[str], *, test_share: float = 0.2, seed: int = 0) -> dict[str, Split]:
    """Send each patient as a whole to train or test.

    Patients are ranked by the SHA-256 of seed and id, so the answer does not depend on their order. The first
    ``test_share`` of the ranking is the test split: at least one patient when there are two or more, and none
    when there is only one, because a test split without a training split serves nobody.

    Raises:
        ValueError: ``test_share`` is not in [0, 1).
    """
    if not 0 <= test_share < 1:
        raise ValueError(f"split_patients: test_share is {test_share}, expected [0, 1); give for example 0.2")
    ranked = sorted(set(patients), key=lambda patient: _rank(patient, seed))
    count = min(len(ranked) - 1, max(1, round(test_share * len(ranked)))) if test_share and ranked else 0
    return {patient: "test" if place < count else "train" for place, patient in enumerate(ranked)}


def split_of(patient_id: str, shares: Mapping[str, float], *, seed: int = 0) -> Split:
    """The split of one patient, by a hash of seed and id alone: no other patient is needed, and new ones move none.

    Args:
        shares: split -> share of the patients; they sum to 1. Met on average: few patients may miss them by far.
    """
    place = int(_rank(patient_id, seed)[:13], 16) / 16**13
    limit = 0.0
    named = [split for split in get_args(Split) if shares.get(split, 0) > 0]
    for split in named[:-1]:
        limit += shares[split]
        if place < limit:
            return split
    return named[-1]
