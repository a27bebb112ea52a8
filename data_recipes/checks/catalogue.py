"""All rows of the manifests under test and of registered test sets: numbered, read lazily, read again by number."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Literal

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.rows import ManifestRows
from medvlm.data_recipes.sample import Sample, VisualRef, visuals_of

Part = Literal["train", "validation", "test", "registered"]
PARTS: tuple[Part, ...] = ("train", "validation", "test", "registered")
"""Splits, and the rows of registered test sets; training must share nothing with the ones that stand after it."""

WRITTEN = ("quarantine.jsonl", "findings.jsonl", "visuals.jsonl", "lengths.jsonl", "texts.jsonl")
"""JSONL files of the walk and of the check that are no manifests."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A row and where it stands.

    Attributes:
        number: of the row among all rows, from 0.
        where: "path:line".
        root: folder that relative paths of its visuals start from.
        registered: whether it belongs to a registered test set and not to the data under test.
    """

    number: int
    where: str
    root: Path
    registered: bool
    sample: Sample

    @property
    def part(self) -> Part:
        return "registered" if self.registered else self.sample.split

    def visuals(self) -> tuple[VisualRef, ...]:
        """The distinct visuals of all its sides, with absolute paths."""
        found: list[VisualRef] = []
        for side in self.sample.sides():
            for ref in visuals_of(side):
                # normpath asks no disk: a resolve for each visual of each row takes longer than reading the row.
                ref = replace(ref, path=os.path.normpath(self.root / ref.path))
                if ref not in found:
                    found.append(ref)
        return tuple(found)

    def answers(self) -> tuple[str, ...]:
        """The last answer of each side; of a question its reference."""
        if self.sample.question is not None:
            return self.sample.question.answers[:1]
        return tuple(side[-1].text for side in self.sample.sides())

    def texts(self) -> tuple[str, ...]:
        """Every text of the row once: turns, both sides of a preference, answers."""
        turns = dict.fromkeys(turn.text for side in self.sample.sides() for turn in side)
        question = self.sample.question
        return tuple(dict.fromkeys((*turns, *(question.answers if question else ()))))


class Catalogue:
    """Rows of all manifests by number.

    Args:
        manifests: under test.
        registered: test sets that training must not contain.
        root: folder of relative paths; None: the folder of each manifest.

    Raises:
        BadSample: a manifest is missing.
    """

    def __init__(self, manifests: Sequence[Path], registered: Sequence[Path] = (), root: Path | None = None) -> None:
        known = {path.resolve() for path in manifests}
        self.manifests = [*manifests, *(path for path in registered if path.resolve() not in known)]
        self._under_test = len(manifests)
        self._roots = [(root or path.parent).resolve() for path in self.manifests]
        self._rows = [ManifestRows(path) for path in self.manifests]
        self._ends = list(accumulate(map(len, self._rows)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[Seen | BadSample]:
        return map(self.row, range(len(self)))

    def row(self, number: int) -> Seen | BadSample:
        """Row ``number``, or why it cannot be used."""
        manifest, index = self._place(number)
        found = self._rows[manifest].row(index)
        if isinstance(found, BadSample):
            return found
        return Seen(
            number=number,
            where=self.where(number),
            root=self._roots[manifest],
            registered=manifest >= self._under_test,
            sample=found,
        )

    def seen(self, number: int) -> Seen:
        """Row ``number`` that was good when it was seen before.

        Raises:
            BadSample: it no longer is.
        """
        row = self.row(number)
        if isinstance(row, BadSample):
            raise row
        return row

    def where(self, number: int) -> str:
        """ "path:line" of row ``number``."""
        manifest, index = self._place(number)
        return self._rows[manifest].where(index)

    def is_registered(self, number: int) -> bool:
        return self._place(number)[0] >= self._under_test

    def under_test(self) -> int:
        """How many rows are no rows of registered test sets; they come first."""
        return self._ends[self._under_test - 1] if self._under_test else 0

    def fingerprints(self) -> list[str]:
        """SHA-256 of each manifest under test."""
        return [rows.fingerprint for rows in self._rows[: self._under_test]]

    def _place(self, number: int) -> tuple[int, int]:
        manifest = bisect_right(self._ends, number)
        return manifest, number - (self._ends[manifest - 1] if manifest else 0)


def manifests_in(paths: Sequence[Path]) -> list[Path]:
    """The manifests that ``paths`` name: themselves, or the JSONL files directly in a folder.

    Raises:
        BadSample: nothing there, or a folder without manifests.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.glob("*.jsonl") if p.name not in WRITTEN)
            if not inside:
                raise BadSample(
                    "no manifest (*.jsonl) in this folder",
                    where=str(path),
                    mend="make them with medvlm data walk, or name them",
                )
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise BadSample("no such file or folder", where=str(path), mend="check the path")
    return list(dict.fromkeys(found))


def digest(text: str) -> int:
    """64 bits that stand for ``text``: two of a million differ with a chance of 1 - 3e-8."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
