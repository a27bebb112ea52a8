"""``<image>``, ``<video>`` and ``<volume>`` in a text -> the visuals at their place."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Part, VisualRef

PLACEHOLDER = re.compile(r"<(image|video|volume)>")


class Waiting:
    """The visuals of a row that wait for their placeholders.

    ``<video>`` takes the next video, ``<image>`` and ``<volume>`` the next of the others: a volume is named image in
    many files. Where a row has only videos, ``<image>`` takes them (LLaVA-NeXT writes clips so).
    """

    def __init__(self, refs: Sequence[VisualRef], where: str) -> None:
        self._where, self._all = where, len(refs)
        self._videos = deque(ref for ref in refs if ref.kind == "video")
        self._others = deque(ref for ref in refs if ref.kind != "video")
        self._only_videos = bool(self._videos) and not self._others
        self._placed = 0

    def __len__(self) -> int:
        return len(self._videos) + len(self._others)

    def take(self, name: str) -> VisualRef:
        """The visual of the next placeholder ``name``.

        Raises:
            BadSample: there are more placeholders than visuals.
        """
        queue = self._videos if name == "video" or self._only_videos else self._others
        self._placed += 1
        if not queue:
            raise BadSample(
                f"<{name}> number {self._placed} has no visual: the row names {self._all}",
                where=self._where,
                mend="name as many files as there are placeholders",
            )
        return queue.popleft()

    def rest(self) -> list[VisualRef]:
        """Those that are still waiting, images and volumes first."""
        left = [*self._others, *self._videos]
        self._others.clear()
        self._videos.clear()
        return left

    def finish(self) -> None:
        """
        Raises:
            BadSample: a visual was never shown.
        """
        if len(self):
            raise BadSample(
                f"{len(self)} of {self._all} visuals have no placeholder in the text",
                where=self._where,
                mend="write <image> (or <video>) where each is shown, or unplaced: first in the recipe",
            )


def parts_of(text: str, waiting: Waiting) -> list[Part]:
    """Text and visuals in their order; line breaks and spaces around a placeholder go."""
    parts: list[Part] = []
    for number, piece in enumerate(PLACEHOLDER.split(text)):
        if number % 2:
            parts.append(waiting.take(piece))
        elif piece.strip():
            parts.append(piece.strip())
    return parts
