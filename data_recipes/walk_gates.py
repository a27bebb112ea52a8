"""What a row must pass before it is written: an id of its own, and no question of a public test set in training."""

from __future__ import annotations

import re
from hashlib import blake2b

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Sample, VisualRef

CHOOSING = ("series_uid", "frame", "time_index", "member", "item")
"""Options of readers that choose one of several visuals of a file or folder."""


def digest(*texts: str) -> bytes:
    """Sixteen bytes that stand for some text; two texts of a walk share them by accident never in practice."""
    return blake2b("\0".join(texts).encode(), digest_size=16).digest()


def content_of(ref: VisualRef, sha256: str | None) -> str:
    """What tells copies: the bytes, and which visual it is where one file or folder holds several."""
    return " ".join([str(sha256), *(str(ref.options.get(name, "")) for name in CHOOSING)])


def asked(sample: Sample) -> bytes:
    """Stands for the pictures and the first question, spelling and "Answer yes or no." aside."""
    bare = re.sub(r"\s*Answer [^.]*\.\s*$", "", sample.turns[0].text)
    question = re.sub(r"\W+", " ", bare).strip().lower()
    return digest(*(content_of(ref, ref.sha256) for ref in sample.visuals()), question)


class Gates:
    """Learns all finished samples once, then, after ``restart``, judges the same samples in the same order.

    Sixteen bytes are kept of every id and every public test question, and the id of the latter.
    """

    def __init__(self) -> None:
        self._ids: set[bytes] = set()
        self._public: dict[bytes, str] = {}

    def learn(self, sample: Sample) -> None:
        """A sample that will be judged later."""
        if not self._new(sample):
            return
        if sample.split == "test" and sample.metadata.get("official_split"):
            self._public[asked(sample)] = sample.sample_id

    def restart(self) -> None:
        """All samples are learnt; now they are judged from the first on."""
        self._ids.clear()

    def repeated(self, sample: Sample) -> BadSample | None:
        """The refusal of a second sample of the same id (the same dataset lying in two places)."""
        if self._new(sample):
            return None
        return BadSample(
            f"sample_id {sample.sample_id!r} occurs twice",
            where=_place(sample),
            mend="remove the second copy of the dataset or row",
            sample_id=sample.sample_id,
        )

    def leaks(self, sample: Sample) -> BadSample | None:
        """The refusal of a training row that asks what a public test row asks about the same pictures."""
        test = self._public.get(asked(sample)) if sample.split != "test" and self._public else None
        if test is None:
            return None
        return BadSample(
            f"asks what the public test row {test!r} asks about the same visuals",
            where=_place(sample),
            mend="keep it out of training",
            sample_id=sample.sample_id,
        )

    def _new(self, sample: Sample) -> bool:
        before = len(self._ids)
        self._ids.add(digest(sample.sample_id))
        return len(self._ids) > before


def _place(sample: Sample) -> str:
    refs = sample.visuals()
    return refs[0].path if refs else sample.source
