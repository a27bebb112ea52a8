"""Loose visuals that were read -> samples; a copy of a dataset's visual belongs to that one's patient and split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from medvlm.data_recipes.decoding import Facts, key_of
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.loose import Candidate, describe
from medvlm.data_recipes.read_once import Outcomes
from medvlm.data_recipes.sample import Sample, Split, VisualRef
from medvlm.data_recipes.splits import split_patients
from medvlm.data_recipes.walk_gates import content_of, digest

BLOCK = 256
"""Rows or visuals that are looked at together."""

Recall = Callable[[Iterable[VisualRef]], Outcomes]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose a visual of a dataset is."""

    patient_id: str
    split: Split
    official: bool


def blocks(rows: Iterable[T]) -> Iterator[list[T]]:
    """``BLOCK`` rows at a time."""
    source = iter(rows)
    while found := list(islice(source, BLOCK)):
        yield found


class LooseOwners:
    """Learns the samples of all datasets, then describes the loose visuals.

    Only owners of what also lies loose are kept: a dataset has many more visuals than a folder has copies of them.
    """

    def __init__(self, candidates: Sequence[Candidate], recall: Recall) -> None:
        """
        Args:
            candidates: loose visuals; all have been read.
            recall: what reading told of visuals.
        """
        self._candidates, self._recall = candidates, recall
        self._contents = {content for _, _, content in self._read() if content is not None}
        self._patients = {candidate.patient_id for candidate in candidates}
        self._owners: dict[bytes, Owner] = {}

    def learn(self, sample: Sample) -> None:
        """A finished sample of a dataset."""
        if not self._contents:
            return
        for ref in sample.visuals():
            content = digest(content_of(ref, ref.sha256))
            loose = content in self._contents or sample.patient_id in self._patients
            if loose and (content not in self._owners or sample.split == "test"):
                self._owners[content] = Owner(
                    patient_id=sample.patient_id,
                    split=sample.split,
                    official=bool(sample.metadata.get("official_split")),
                )

    def samples(self, *, seed: int, licence: str) -> Iterator[Sample | BadSample]:
        """Samples of the loose visuals in their order, and the readers' refusals in their place."""
        owned = {owner.patient_id: owner.split for owner in self._owners.values()}
        first: dict[bytes, str] = {}
        for candidate, _, content in self._read():
            if content is not None:
                owner = self._owners.get(content)
                first.setdefault(content, owner.patient_id if owner else candidate.patient_id)
        splits = split_patients((patient for patient in first.values() if patient not in owned), seed=seed)
        for candidate, facts, content in self._read():
            if isinstance(facts, BadSample) or content is None:
                assert isinstance(facts, BadSample)
                yield facts
                continue
            patient, known = first[content], self._owners.get(content)
            split = known.split if known else owned.get(patient) or splits[patient]
            official = known is not None and known.official
            yield from describe(
                replace(candidate, patient_id=patient), facts, split=split, licence=licence, official=official
            )

    def _read(self) -> Iterator[tuple[Candidate, Facts | BadSample, bytes | None]]:
        for block in blocks(self._candidates):
            outcomes = self._recall(candidate.ref for candidate in block)
            for candidate in block:
                facts = outcomes[key_of(candidate.ref)]
                content = digest(content_of(candidate.ref, facts.sha256)) if isinstance(facts, Facts) else None
                yield candidate, facts, content
