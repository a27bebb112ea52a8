"""A patient lies in one split, and a sample id stands once."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np

from medvlm.data_recipes.checks.catalogue import PARTS, Catalogue, Seen, digest
from medvlm.data_recipes.checks.finding import Finding

_REGISTERED = PARTS.index("registered")


class Patients:
    """Finds patients in two splits, or in training and in a registered test set; 17 bytes a row.

    The rows of the earlier split (train before validation before test) are named: leaving them out mends it.

    Args:
        allow_official: only warn where the authors' own published split shares the patient (metadata
            ``official_split`` on all its rows; VQA-RAD is the known case).
    """

    def __init__(self, allow_official: bool = False) -> None:
        self.allow_official = allow_official
        self._patients, self._rows, self._parts = array("Q"), array("Q"), array("B")

    def see(self, row: Seen) -> None:
        self._patients.append(digest(row.sample.patient_id))
        self._rows.append(row.number)
        official = 8 if row.sample.metadata.get("official_split") else 0
        self._parts.append(PARTS.index(row.part) | official)

    def findings(self, catalogue: Catalogue) -> Iterator[Finding]:
        rows = np.frombuffer(self._rows, np.uint64)
        parts = np.frombuffer(self._parts, np.uint8)
        for places in _groups(np.frombuffer(self._patients, np.uint64)):
            kinds = parts[places] & 7
            if kinds.min() == kinds.max():
                continue
            official = bool((parts[places] & 8).all())
            for place, kind in zip(places, kinds, strict=True):
                # A patient of the test split may stand in a registered test set too: they are often the same set.
                later = kinds > kind if PARTS[kind] == "train" else (kinds > kind) & (kinds < _REGISTERED)
                if not later.any():
                    continue
                last = places[later][np.argmax(kinds[later])]
                row = catalogue.seen(int(rows[place]))
                yield Finding(
                    check="patients",
                    severity="warning" if official and self.allow_official else "error",
                    where=row.where,
                    sample_id=row.sample.sample_id,
                    reason=f"its patient is in {row.part} and in {PARTS[parts[last] & 7]} "
                    f"({catalogue.where(int(rows[last]))})" + ("; the published split has it so" if official else ""),
                    mend="send all samples of a patient to one split; until then leave this row out",
                )


class SampleIds:
    """Finds a sample id that stands twice among the rows under test; 16 bytes a row."""

    def __init__(self) -> None:
        self._ids, self._rows = array("Q"), array("Q")

    def see(self, row: Seen) -> None:
        if not row.registered:
            self._ids.append(digest(row.sample.sample_id))
            self._rows.append(row.number)

    def findings(self, catalogue: Catalogue) -> Iterator[Finding]:
        rows = np.frombuffer(self._rows, np.uint64)
        for places in _groups(np.frombuffer(self._ids, np.uint64)):
            for place in places[1:]:
                row = catalogue.seen(int(rows[place]))
                yield Finding(
                    check="sample_ids",
                    severity="error",
                    where=row.where,
                    sample_id=row.sample.sample_id,
                    reason=f"its sample_id stands already at {catalogue.where(int(rows[places[0]]))}",
                    mend="give each sample its own id, or remove the second copy of the row",
                )


def _groups(values: np.ndarray) -> Iterator[np.ndarray]:
    """Places of each value that occurs more than once, in ascending order."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=values[order][:1] - 1 if len(values) else 0))
    for group in np.split(order, starts[1:] if len(starts) else []):
        if len(group) > 1:
            yield group
