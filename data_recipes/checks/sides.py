"""Side words against planned augmentation: a text that says "left" must not see its picture mirrored."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medvlm.data_recipes.checks.catalogue import Catalogue, Seen
from medvlm.data_recipes.checks.finding import Finding
from medvlm.data_recipes.laterality import Transform, mirrors, side_word
from medvlm.data_recipes.typed_yaml import BadConfig, Document, nearest
from medvlm.model.visual import Image, Kind, Video, Visual, Volume


def _on_arrays(change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Transform:
    """A change of (..., rows, columns) arrays as a transform of any visual."""

    def transform(visual: Visual, rng: np.random.Generator) -> Visual:
        match visual:
            case Volume():
                return replace(visual, voxels=np.ascontiguousarray(change(visual.voxels, rng)))
            case Video():
                return replace(visual, frames=np.ascontiguousarray(change(visual.frames, rng)))
        return replace(visual, pixels=np.ascontiguousarray(change(visual.pixels, rng)))

    return transform


def _shifted(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    step = max(1, values.shape[-1] // 16)
    return np.roll(values, tuple(int(s) for s in rng.integers(-step, step + 1, 2)), axis=(-2, -1))


AUGMENTATIONS: dict[str, Transform] = {
    "hflip": _on_arrays(lambda a, _: a[..., ::-1]),
    "vflip": _on_arrays(lambda a, _: a[..., ::-1, :]),
    "zflip": _on_arrays(lambda a, _: a[::-1]),
    "rot90": _on_arrays(lambda a, rng: np.rot90(a, 1 + 2 * int(rng.integers(2)), axes=(-2, -1))),
    "rot180": _on_arrays(lambda a, _: a[..., ::-1, ::-1]),
    "transpose": _on_arrays(lambda a, _: a.swapaxes(-2, -1)),
    "shift": _on_arrays(_shifted),
    "noise": _on_arrays(lambda a, rng: a + rng.normal(0, 0.05 * (np.ptp(a) or 1), a.shape).astype(np.float32)),
    "brightness": _on_arrays(lambda a, rng: a * np.float32(rng.uniform(0.8, 1.2))),
}
"""Augmentations by the names that people plan them under. What each does to sides is measured, not looked up: see
laterality.mirrors."""


def augmentations_of(given: str) -> tuple[str, ...]:
    """Names from "hflip,rot90", or from the list ``augmentations`` of a YAML file.

    Raises:
        BadConfig: an unknown name, or a file without the entry.
    """
    names: Sequence[object] = [name.strip() for name in given.split(",") if name.strip()]
    where = "--augmentation"
    if given.endswith((".yaml", ".yml")):
        document = Document(Path(given))
        entry = document.data.get("augmentations")  # type: ignore[union-attr]
        if not isinstance(entry, list):
            raise BadConfig("no list 'augmentations'", where=given, mend="write augmentations: [hflip, ...]")
        names, where = entry, document.where("augmentations")
    for name in names:
        if name not in AUGMENTATIONS:
            raise BadConfig(
                f"unknown augmentation {name!r}{nearest(str(name), list(AUGMENTATIONS))}",
                where=where,
                mend=f"use {', '.join(AUGMENTATIONS)}",
            )
    return tuple(str(name) for name in names)


_LIKE: dict[Kind, Visual] = {
    "image": Image(pixels=np.eye(16, dtype=np.float32)[None], modality="unknown", unit="display"),
    "volume": Volume(voxels=np.zeros((16, 16, 16), np.float32), modality="unknown", unit="arbitrary"),
    "video": Video(frames=np.zeros((8, 1, 16, 16), np.float32), times_s=np.arange(8.0), modality="unknown"),
}


def mirroring(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Kind of visual -> those of the augmentations that turn or mirror it."""
    return {
        kind: tuple(name for name in names if mirrors(AUGMENTATIONS[name], like, draws=8))
        for kind, like in _LIKE.items()
    }


class Sides:
    """Finds training rows whose text names a side and whose visuals a planned augmentation would turn.

    Args:
        names: keys of AUGMENTATIONS; none: nothing is planned and nothing is found.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._mirroring = mirroring(names) if names else {}
        self._rows = array("Q")

    def see(self, row: Seen) -> None:
        if row.part == "train" and self._of(row) is not None:
            self._rows.append(row.number)

    def findings(self, catalogue: Catalogue) -> Iterator[Finding]:
        for number in self._rows:
            row = catalogue.seen(number)
            found = self._of(row)
            if found is not None:
                kind, names, word = found
                yield Finding(
                    check="sides",
                    severity="error",
                    where=row.where,
                    sample_id=row.sample.sample_id,
                    reason=f"the text says {word!r}, and {', '.join(names)} would turn its {kind}",
                    mend="leave the augmentation out for this data, or the row",
                    visual=row.visuals()[0],
                )

    def _of(self, row: Seen) -> tuple[str, tuple[str, ...], str] | None:
        """(kind of visual, augmentations that turn it, side word); None when nothing clashes."""
        kind = next((ref.kind for ref in row.visuals() if self._mirroring.get(ref.kind)), None)
        word = side_word("\n".join(row.texts())) if kind is not None else None
        return None if kind is None or word is None else (kind, self._mirroring[kind], word)
