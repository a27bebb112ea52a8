"""The same image in two splits, or in training and a registered test set: same file, same pixels, or nearly so."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np

from medvlm.data_recipes.checks.catalogue import PARTS, Catalogue
from medvlm.data_recipes.checks.finding import Finding
from medvlm.data_recipes.checks.hashing import as_words
from medvlm.data_recipes.checks.looking import Look
from medvlm.data_recipes.checks.near import HammingIndex
from medvlm.data_recipes.checks.visuals import Visuals

NEAR = 16
"""Bits of 256 in which two hashes of one picture may differ; docs/data-checks.md says what it was chosen by."""

_SHARE = 0.5
"""Of the hashes of the visual that has fewer of them: so many must have a partner in the other."""

_REGISTERED = PARTS.index("registered")


class Copies:
    """Finds copies between parts (train, validation, test, registered); 50 to 200 bytes a visual.

    A row is named once for each of its visuals and each later part that holds a copy of it: rows of training, and not
    those of the test set. Copies inside one part are counted; they leak nothing.

    Args:
        visuals: which rows show what.
        distance: bits; see NEAR.
    """

    def __init__(self, visuals: Visuals, distance: int = NEAR) -> None:
        self.visuals, self.distance = visuals, distance
        self._contents = np.zeros(len(visuals), np.uint64)  # 0: not readable
        self._counts = np.zeros(len(visuals), np.int64)
        self._owners, self._words = array("L"), array("Q")

    def look(self, number: int, look: Look) -> None:
        """Take note of one visual."""
        if look.pixels is None:
            return
        self._contents[number] = int(look.pixels[:16], 16)
        self._counts[number] = len(look.hashes)
        for words in as_words(look.hashes):
            self._owners.append(number)
            self._words.extend(words.tolist())

    def content(self, number: int) -> int:
        """64 bits that are equal for visuals of equal pixels; of a visual that cannot be read, its own number."""
        return int(self._contents[number]) or number

    def findings(self, catalogue: Catalogue) -> Iterator[Finding]:
        """One per row, visual and part with a copy; exact copies before near ones."""
        shown = self.visuals.parts()
        told: set[tuple[int, int]] = set()
        for number, other, apart in (*self._exact(shown), *self._near(shown)):
            for part in np.flatnonzero(shown[other]):
                if (number, int(part)) not in told and shown[number, :part].any():
                    told.add((number, int(part)))
                    yield from self._rows(catalogue, number, other, int(part), apart)
        readable = self._contents[self._contents > 0]
        twins = len(readable) - len(np.unique(readable))
        if twins:
            yield Finding(
                check="image_copies",
                severity="note",
                where=str(catalogue.manifests[0]),
                reason=f"{twins} of {len(readable)} visuals have the same pixels as another file",
                mend="nothing inside one split; copies across splits are named row by row",
            )

    def _rows(self, catalogue: Catalogue, number: int, other: int, part: int, apart: int) -> Iterator[Finding]:
        place = next(catalogue.where(row) for row, where in self.visuals.rows_of(other) if where == part)
        for row, mine in self.visuals.rows_of(number):
            if mine >= part or (part == _REGISTERED and PARTS[mine] != "train"):
                continue
            seen = catalogue.seen(row)
            same = "is the same file as" if number == other else "has the same pixels as"
            what = same if apart == 0 else f"is a near-duplicate ({apart} of 256 bits differ) of"
            in_test = "a registered test set" if part == _REGISTERED else f"the {PARTS[part]} split"
            exact = "image_copies" if apart == 0 else "near_copies"
            yield Finding(
                check="test_set_images" if part == _REGISTERED else exact,
                severity="error",
                where=seen.where,
                sample_id=seen.sample.sample_id,
                reason=f"its {self.visuals.ref(number).kind} {what} one of {in_test} ({place})",
                mend="leave the row out, or send both to one split",
                visual=self.visuals.ref(number),
                other=self.visuals.ref(other),
            )

    def _exact(self, shown: np.ndarray) -> Iterator[tuple[int, int, int]]:
        """(visual, its copy in a later part, 0); itself where one file stands in several parts."""
        first: dict[tuple[int, int], int] = {}
        for number in np.flatnonzero(shown[:, 1:].any(axis=1)).tolist():
            for part in np.flatnonzero(shown[number]).tolist():
                first.setdefault((self.content(number), part), number)
        for number in range(len(shown)):
            for part in range(1, len(PARTS)):
                if shown[number, :part].any():
                    copy = number if shown[number, part] else first.get((self.content(number), part))
                    if copy is not None:
                        yield number, copy, 0

    def _near(self, shown: np.ndarray) -> Iterator[tuple[int, int, int]]:
        """(visual, one of a later part with other pixels but like hashes, smallest distance), nearest first."""
        hashes = np.array(self._words, np.uint64).reshape(-1, 4)
        owners = np.array(self._owners, np.int64)
        lowest, highest = shown.argmax(axis=1), len(PARTS) - 1 - shown[:, ::-1].argmax(axis=1)
        asked = np.flatnonzero(lowest[owners] < _REGISTERED) if len(owners) else owners
        held = np.flatnonzero(highest[owners] > 0) if len(owners) else owners
        if not len(asked) or not len(held):
            return
        found: list[np.ndarray] = []
        for query, place, apart in HammingIndex(hashes[held], self.distance).near(hashes[asked]):
            mine, theirs = asked[query], held[place]
            kept = lowest[owners[mine]] < highest[owners[theirs]]
            kept &= self._contents[owners[mine]] != self._contents[owners[theirs]]
            found.append(np.stack([owners[mine], owners[theirs], mine, theirs, apart], axis=1)[kept])
        pairs = np.unique(np.concatenate(found), axis=0) if found else np.zeros((0, 5), np.int64)
        ends = np.flatnonzero((np.diff(pairs[:, :2], axis=0) != 0).any(axis=1)) + 1
        likely: list[tuple[int, int, int]] = []
        for group in np.split(pairs, ends) if len(pairs) else []:
            number, other = int(group[0, 0]), int(group[0, 1])
            matched = min(len(np.unique(group[:, 2])), len(np.unique(group[:, 3])))
            if matched >= _SHARE * min(self._counts[number], self._counts[other]):
                likely.append((int(group[:, 4].min()), number, other))
        for distance, number, other in sorted(likely):
            yield number, other, max(distance, 1)
