"""Any folder of clinical files -> manifests that are known to load, and a list of what cannot be used and why.

medvlm data walk FOLDER --out DIR
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.inventory import take_inventory
from medvlm.data_recipes.loose import SOURCE, Candidate, find_candidates
from medvlm.data_recipes.loose_owners import LooseOwners, Recall, blocks
from medvlm.data_recipes.manifest_folder import Later, ManifestFolder
from medvlm.data_recipes.one_writer import one_writer
from medvlm.data_recipes.progress import tracking
from medvlm.data_recipes.read_once import ReadOnce, all_visuals, with_facts
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.sample import Sample, VisualRef
from medvlm.data_recipes.walk_gates import Gates
from medvlm.data_recipes.walk_result import WalkResult, read_walk, write_walk

__all__ = ["UNSTATED", "WalkResult", "main", "read_walk", "walk_folder", "walk_into", "write_walk"]

UNSTATED = "not stated: ask the holder of the files"
MEMORY = ".visuals.sqlite"
"""In the folder of the manifests: what reading told, so that a walk that was stopped goes on."""

Row = Sample | BadSample


@dataclass(frozen=True, kw_only=True)
class Found:
    """What lies in a folder, before any visual is read.

    Attributes:
        refused: files that cannot be used.
        other_files: how many are neither.
    """

    datasets: Sequence[tuple[Recipe, Path]]
    candidates: Sequence[Candidate]
    refused: Sequence[BadSample]
    other_files: int


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """What the second time through the datasets takes from the first."""

    gates: Gates
    owners: LooseOwners
    rows: int


def walk_into(
    folder: Path,
    out: Path,
    *,
    progress: bool = False,
    workers: int = 1,
    seed: int = 0,
    licence: str = UNSTATED,
    resample_gaps: bool = False,
) -> dict[str, Any]:
    """Walk ``folder``, datasets by their recipes and everything else by its content, and write the manifests.

    ``out`` gets train.jsonl, test_questions.jsonl, validation_questions.jsonl and test_reports.jsonl (the last two only
    when there are such rows), quarantine.jsonl and summary.json. Visuals stay where they are: paths are absolute. The
    rows of a dataset are never held together; a walk that was stopped does not read again what it had read.

    Args:
        progress: show bars on standard error.
        workers: processes that read visuals.
        seed: of the split of loose files; datasets have their own splits.
        licence: of the loose files.
        resample_gaps: read DICOM series with uneven slice distances too, interpolated to the smallest one.

    Returns:
        What summary.json says: see WalkResult.counts.

    Raises:
        NotADirectoryError: there is no such folder.
    """
    found = _look(folder.resolve(), out.resolve(), resample_gaps=resample_gaps)
    with ReadOnce(out / MEMORY, workers=workers) as reading:
        learnt = _learn(found, reading, progress=progress)
        loose = learnt.owners
        for sample in loose.samples(seed=seed, licence=licence):
            if isinstance(sample, Sample):
                learnt.gates.learn(sample)
        learnt.gates.restart()
        with ManifestFolder(out) as files, tracking("writing rows", learnt.rows, show=progress) as track:
            repeated, leaking = Later(), Later()

            def pass_on(sample: Sample) -> None:
                if bad := learnt.gates.repeated(sample):
                    repeated.add(bad, sample.source)
                elif bad := learnt.gates.leaks(sample):
                    leaking.add(bad, sample.source)
                else:
                    files.add(sample)

            for bad in found.refused:
                files.refuse(bad, SOURCE)
            for recipe, place in found.datasets:
                unread = Later()
                for row, finished in _finished(_rows(recipe, place), reading.recall):
                    track.advance()
                    if isinstance(finished, Sample):
                        pass_on(finished)
                    elif isinstance(row, BadSample):
                        files.refuse(row, recipe.name)
                    else:
                        unread.add(finished, recipe.name)
                unread.write_to(files)
            for finished in loose.samples(seed=seed, licence=licence):
                if isinstance(finished, Sample):
                    pass_on(finished)
                else:
                    files.refuse(finished, SOURCE)
            repeated.write_to(files)
            leaking.write_to(files)
            files.say(other_files=found.other_files)
    return files.counts()


def walk_folder(folder: Path, **options: Any) -> WalkResult:
    """``walk_into`` a temporary folder; all samples in memory, for folders that are small.

    Args:
        options: of ``walk_into``.

    Raises:
        NotADirectoryError: there is no such folder.
    """
    with tempfile.TemporaryDirectory() as out:
        walk_into(folder, Path(out), **options)
        result = read_walk(Path(out))
        return replace(result, samples=tuple(result.samples))


def _look(folder: Path, out: Path, *, resample_gaps: bool) -> Found:
    inventory = take_inventory(folder, leave_out=out)
    candidates, refused, directories = find_candidates(folder, inventory.loose, resample_gaps=resample_gaps)
    return Found(
        datasets=inventory.datasets,
        candidates=candidates,
        refused=(*inventory.refused, *refused),
        other_files=inventory.other_files + directories,
    )


def _rows(recipe: Recipe, place: Path) -> Iterator[Row]:
    """Samples and refused rows; a file that is refused as a whole ends the dataset, not the walk."""
    try:
        yield from recipe.build(place)
    except BadSample as bad:
        yield bad


def _visuals(rows: Iterable[Row]) -> Iterator[VisualRef]:
    return (ref for row in rows if isinstance(row, Sample) for ref in all_visuals(row))


def _finished(rows: Iterable[Row], recall: Recall) -> Iterator[tuple[Row, Row]]:
    """(row, the same with hashes); a sample with a visual that cannot be read becomes the reader's refusal."""
    for block in blocks(rows):
        outcomes = recall(_visuals(block))
        for row in block:
            yield row, row if isinstance(row, BadSample) else with_facts(row, outcomes)


def _learn(found: Found, reading: ReadOnce, *, progress: bool) -> Learnt:
    """Read all visuals; learn what the gates and the loose files must know of the datasets.

    Text and visuals that an earlier run has read are learnt as they pass; the first visual that must be read makes
    that useless, and the datasets are gone through once more when all are read.
    """
    new = reading.need(candidate.ref for candidate in found.candidates)
    rows = 0
    gates, owners = Gates(), None if new else LooseOwners(found.candidates, reading.recall)

    def learn(block: Iterable[Row]) -> None:
        assert owners is not None
        for _, finished in _finished(block, reading.recall):
            if isinstance(finished, Sample):
                gates.learn(finished)
                owners.learn(finished)

    for recipe, place in found.datasets:
        for block in blocks(_rows(recipe, place)):
            rows += len(block)
            new += reading.need(_visuals(block))
            if not new:
                learn(block)
    reading.read_needed(progress=progress)
    if new or owners is None:
        gates, owners = Gates(), LooseOwners(found.candidates, reading.recall)
        for recipe, place in found.datasets:
            learn(_rows(recipe, place))
    return Learnt(gates=gates, owners=owners, rows=rows)


def _show(counts: dict[str, Any], out: Path) -> None:
    table = Table("source", "train", "validation", "test", "quarantined", title=f"written to {out}")
    for source, row in counts["by_source"].items():
        table.add_row(source, *(str(row[name]) for name in ("train", "validation", "test", "quarantined")))
    console = Console()
    console.print(table)
    names = ("samples", "images", "volumes", "videos", "quarantined", "other_files")
    console.print(", ".join(f"{name.replace('_', ' ')} {counts[name]}" for name in names))


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 when at least one sample came out, else 1."""
    parser = argparse.ArgumentParser(prog="medvlm data walk", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of clinical files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the manifests")
    parser.add_argument("--workers", type=int, default=1, help="processes that read visuals")
    parser.add_argument("--seed", type=int, default=0, help="of the split of loose files")
    parser.add_argument("--licence", default=UNSTATED, help="licence of the loose files")
    parser.add_argument("--resample-gaps", action="store_true", help="read series with uneven slice distances")
    parser.add_argument("--progress", action="store_true", help="show the bars although this is no terminal")
    given = parser.parse_args(arguments)
    if not given.folder.is_dir():
        parser.error(f"{given.folder} is not a folder; give the folder that holds the files")
    try:
        with one_writer(given.out / ".lock"):
            counts = walk_into(
                given.folder,
                given.out,
                progress=given.progress or sys.stderr.isatty(),
                workers=given.workers,
                seed=given.seed,
                licence=given.licence,
                resample_gaps=given.resample_gaps,
            )
    except BadSample as bad:  # another process is writing there
        print(f"medvlm data walk: {bad}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "Stopped; no manifest was changed. The same command goes on: what was read is not read again.",
            file=sys.stderr,
        )
        return 1
    _show(counts, given.out)
    return 0 if counts["samples"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
