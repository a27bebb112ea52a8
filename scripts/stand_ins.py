"""A few virtual patients in the place of a manifest that is not here: of the same kind, for the same objective."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from medvlm.data_recipes.manifest import write_manifest
from medvlm.data_recipes.rows import ManifestRows
from medvlm.data_recipes.sample import Sample, Turn, VisualRef
from medvlm.data_recipes.stratify import dimension, spread

KINDS = ("2d", "3d", "video", "text", "mixed")
"""What a manifest may hold; "mixed" is all kinds that have visuals."""
NOT_2D = {
    "ct-rate": "3d", "3d-rad": "3d", "m3d-refseg": "3d", "covid-blues": "video", "medqa": "text", "medquad": "text",
    "pubmedqa": "text",
}  # fmt: skip
"""Recipe -> the kind of its samples, of those that are not single pictures."""
WORDS = {"3d": ("3d", "ct", "mr", "mri", "volume", "volumes"), "video": ("video", "clip", "clips"), "text": ("text",)}
"""Words in the name of a manifest that tell its kind."""


def kind_of(root: Path, manifest: str) -> str:
    """What ``manifest`` holds: by its first rows where it is on this disk, else by its name."""
    path = root / manifest
    if path.is_file():
        rows = ManifestRows(path)
        found = {dimension(row) for row in map(rows.row, range(min(len(rows), 100))) if isinstance(row, Sample)}
        if found:
            return found.pop() if len(found) == 1 else "mixed"
    folders = PurePosixPath(manifest).parts[:-1]
    for folder in reversed(folders):
        if folder in NOT_2D:
            return NOT_2D[folder]
    words = set(re.split(r"[^a-z0-9]+", manifest.lower()))
    return next((kind for kind, told in WORDS.items() if words & set(told)), "2d")


def write_stand_in(path: Path, phantoms: Path, kind: str, objective: str) -> None:
    """A manifest of a few virtual patients of ``kind``, such as ``objective`` takes; a file that is there stays."""
    if path.is_file():
        return
    dimensions = ("2d", "3d", "video") if kind == "mixed" else (kind,)
    if objective == "preference":
        names = ["train_pairs"]
    elif kind == "text":
        names = ["train_text"]
    elif objective == "contrastive":
        names = [f"train_captions_{d}" for d in dimensions if d != "video"]
    elif objective == "reinforcement":
        names = ["train_sft"]
    else:
        names = [name for d in dimensions for name in (f"train_captions_{d}", f"train_{d}") if d != "text"]
    rows = [row for name in names for row in _rows(phantoms / f"{name}.jsonl", phantoms)]
    if objective == "preference" and kind == "text":
        rows = [replace(row, turns=tuple(map(_without_visuals, row.turns))) for row in rows]
    rows = [row for row in rows if dimension(row) in dimensions]
    if not rows:
        raise ValueError(f"the virtual patients give no {kind} rows for {path.name} ({objective}); use more --patients")
    write_manifest(path, spread(rows, 12))


def _rows(path: Path, phantoms: Path) -> Iterable[Sample]:
    """Rows of a manifest of phantoms, with absolute paths; none when there is no such manifest."""
    if not path.is_file():
        return
    rows = ManifestRows(path)
    for row in map(rows.row, range(len(rows))):
        assert isinstance(row, Sample)
        yield _placed(row, phantoms)


def _placed(row: Sample, folder: Path) -> Sample:
    """``row`` with absolute paths of its visuals."""

    def placed(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
        return tuple(
            replace(turn, content=tuple(part if isinstance(part, str) else moved(part) for part in turn.content))
            for turn in turns
        )

    def moved(ref: VisualRef) -> VisualRef:
        return replace(ref, path=str((folder / ref.path).absolute()))

    preference = row.preference
    if preference is not None:
        preference = replace(preference, chosen=placed(preference.chosen), rejected=placed(preference.rejected))
    return replace(row, turns=placed(row.turns), preference=preference)


def _without_visuals(turn: Turn) -> Turn:
    return replace(turn, content=tuple(part for part in turn.content if isinstance(part, str)))
