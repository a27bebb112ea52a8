"""Every distinct visual of the manifests, read once by worker processes, with a journal to go on from."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from functools import partial

import numpy as np

from medvlm.data_recipes.checks.catalogue import PARTS, Seen, digest
from medvlm.data_recipes.checks.journal import Journal
from medvlm.data_recipes.checks.looking import Look, key_of, look, look_from_json
from medvlm.data_recipes.checks.private import Private
from medvlm.data_recipes.checks.workers import enough, in_order
from medvlm.data_recipes.progress import tracking
from medvlm.data_recipes.sample import VisualRef


class Visuals:
    """The distinct visuals of all rows, and which rows show them; about 300 bytes a visual and 17 a row."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._refs: list[str] = []
        self._of, self._rows, self._parts = array("L"), array("Q"), array("B")
        self._order: tuple[np.ndarray, np.ndarray] | None = None

    def see(self, row: Seen) -> None:
        for ref in row.visuals():
            text = json.dumps([ref.kind, ref.path, ref.options], sort_keys=True)
            key = digest(text)
            number = self._numbers.setdefault(key, len(self._refs))
            if number == len(self._refs):
                self._refs.append(text)
            self._of.append(number)
            self._rows.append(row.number)
            self._parts.append(PARTS.index(row.part))

    def __len__(self) -> int:
        return len(self._refs)

    def ref(self, number: int) -> VisualRef:
        """The ref, with its absolute path."""
        kind, path, options = json.loads(self._refs[number])
        return VisualRef(kind=kind, path=path, options=options)

    def number_of(self, ref: VisualRef) -> int:
        """The number of an absolute ref.

        Raises:
            KeyError: no row shows it.
        """
        return self._numbers[digest(json.dumps([ref.kind, ref.path, ref.options], sort_keys=True))]

    def rows_of(self, number: int) -> list[tuple[int, int]]:
        """(number, place of its part in PARTS) of the rows that show a visual, in ascending order."""
        order, starts = self._sorted()
        places = order[starts[number] : starts[number + 1]]
        return [(self._rows[place], self._parts[place]) for place in places]

    def parts(self) -> np.ndarray:
        """(number of visuals, 4) bool: whether a row of each of PARTS shows it."""
        shown = np.zeros((len(self), len(PARTS)), bool)
        shown[_view(self._of), _view(self._parts)] = True
        return shown

    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        if self._order is None:
            of = _view(self._of)
            order = np.argsort(of, kind="stable")
            self._order = order, np.searchsorted(of[order], np.arange(len(self) + 1))
        return self._order


def _view(values: array) -> np.ndarray:
    """A copy, so that the array can still grow."""
    return np.array(values, f"u{values.itemsize}")


def look_at_all(
    visuals: Visuals, journal: Journal, private: Private, *, workers: int = 1, progress: bool = False
) -> Iterator[tuple[int, Look]]:
    """The Look of each visual, from the journal or from its file; those of the journal first.

    Args:
        workers: processes that read; 1 reads in this one.
    """
    keys = [key_of(visuals.ref(number), private) for number in range(len(visuals))]
    missing = [number for number, key in enumerate(keys) if key not in journal]
    with tracking("reading visuals", len(keys), done=len(keys) - len(missing), show=progress) as track:
        for number, key in enumerate(keys):
            if key in journal:
                yield number, look_from_json(journal.get(key))
        asked = ((number, visuals.ref(number)) for number in missing)
        look_at = partial(_look_at, private=private)
        for (number, _), found in in_order(look_at, asked, workers=enough(workers, len(missing), 16)):
            journal.add(found.to_json())
            track.advance()
            yield number, found


def _look_at(asked: tuple[int, VisualRef], private: Private) -> Look:
    return look(asked[1], private)
