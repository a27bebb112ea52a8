"""The manifests of a walk as a WalkResult: samples are read from disk as they are asked for."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.loose import SOURCE
from medvlm.data_recipes.manifest_folder import ALWAYS, SOMETIMES, ManifestFolder
from medvlm.data_recipes.sample import Sample, read_jsonl

MANIFESTS = tuple(name for name in (*ALWAYS, *SOMETIMES) if name != "quarantine.jsonl")


@dataclass(frozen=True, kw_only=True)
class WalkResult:
    """What a folder gives.

    Attributes:
        samples: of all splits; their visuals have been read once, have absolute paths and a sha256.
        quarantine: every file or row that cannot be used.
        counts: samples, images, volumes, videos (distinct visuals in use), quarantined, other_files, and
            by_source: source -> train, validation, test, quarantined.
    """

    samples: Collection[Sample]
    quarantine: tuple[BadSample, ...]
    counts: dict[str, Any]


class ManifestRows(Collection[Sample]):
    """The samples of several manifests, read anew each time they are gone through."""

    def __init__(self, paths: tuple[Path, ...], count: int) -> None:
        self._paths, self._count = paths, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sample]:
        """
        Raises:
            BadSample: a row is not as it was written.
        """
        for path in self._paths:
            for row in read_jsonl(path):
                if isinstance(row, BadSample):
                    raise row
                yield row

    def __contains__(self, sample: object) -> bool:
        return any(row == sample for row in self)


def read_walk(out: Path) -> WalkResult:
    """What ``walk_into`` wrote into ``out``."""
    counts = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    with (out / "quarantine.jsonl").open(encoding="utf-8") as lines:
        told = [json.loads(line) for line in lines]
    return WalkResult(
        samples=ManifestRows(tuple(out / name for name in MANIFESTS if (out / name).is_file()), counts["samples"]),
        quarantine=tuple(BadSample(row.pop("reason"), **row) for row in told),
        counts=counts,
    )


def write_walk(result: WalkResult, out: Path) -> None:
    """Write the manifests of ``result`` into another folder."""
    with ManifestFolder(out, summary=result.counts) as folder:
        for sample in result.samples:
            folder.add(sample)
        for bad in result.quarantine:
            folder.refuse(bad, SOURCE)
