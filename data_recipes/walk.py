"""Any folder of clinical files -> manifests that are known to load, and a list of what cannot be used and why."""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from medvlm.data_recipes.decoding import Facts, decode_all, key_of
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.inventory import take_inventory
from medvlm.data_recipes.loose import SOURCE, Candidate, describe, find_candidates
from medvlm.data_recipes.manifest_folder import ManifestFolder
from medvlm.data_recipes.read_once import Outcomes, all_visuals, with_facts
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.sample import Sample, VisualRef
from medvlm.data_recipes.splits import split_patients

UNSTATED = "not stated: ask the holder of the files"
CHOOSING = ("series_uid", "frame", "time_index", "member", "item")
"""Options of readers that choose one of several visuals of a file or folder."""


@dataclass(frozen=True, kw_only=True)
class WalkResult:
    """What a folder gives.

    Attributes:
        samples: of all splits; their visuals have been read once, have absolute paths and a sha256.
        quarantine: every file or row that cannot be used.
        counts: samples, images, volumes, videos (distinct visuals in use), quarantined, other_files, and
            by_source: source -> train, validation, test, quarantined.
    """

    samples: tuple[Sample, ...]
    quarantine: tuple[BadSample, ...]
    counts: dict[str, Any]


def walk_folder(
    folder: Path,
    *,
    progress: bool = False,
    workers: int = 1,
    seed: int = 0,
    licence: str = UNSTATED,
    resample_gaps: bool = False,
) -> WalkResult:
    """Walk ``folder``: datasets by their recipes, everything else by its content.

    Args:
        progress: show a bar on standard error.
        workers: processes that read visuals.
        seed: of the split of loose files; datasets have their own splits.
        licence: of the loose files.
        resample_gaps: read DICOM series with uneven slice distances too, interpolated to the smallest one.

    Raises:
        NotADirectoryError: there is no such folder.
    """
    folder = folder.resolve()
    inventory = take_inventory(folder)
    built = [(recipe, *_build(recipe, place)) for recipe, place in inventory.datasets]
    candidates, refused, directories = find_candidates(folder, inventory.loose, resample_gaps=resample_gaps)
    refs = [ref for _, samples, _ in built for sample in samples for ref in all_visuals(sample)]
    refs += [candidate.ref for candidate in candidates]
    outcomes = decode_all(refs, workers=workers, progress=progress)

    samples: list[Sample] = []
    quarantine: list[tuple[str, BadSample]] = [(SOURCE, bad) for bad in (*inventory.refused, *refused)]
    for recipe, drafts, bad_rows in built:
        quarantine += [(recipe.name, bad) for bad in bad_rows]
        good, bad_visuals = _with_facts(drafts, outcomes)
        samples += good
        quarantine += [(recipe.name, bad) for bad in bad_visuals]
    found, bad_loose = _loose_samples(candidates, outcomes, samples, seed=seed, licence=licence)
    samples += found
    quarantine += [(SOURCE, bad) for bad in bad_loose]
    for gate in (_unique, _no_test_in_train):
        samples, stopped = gate(samples)
        quarantine += stopped
    other = inventory.other_files + directories
    return WalkResult(
        samples=tuple(samples),
        quarantine=tuple(bad for _, bad in quarantine),
        counts=_count(samples, quarantine, other),
    )


def _build(recipe: Recipe, place: Path) -> tuple[list[Sample], list[BadSample]]:
    """Samples and refused rows; a file that is refused as a whole ends the dataset, not the walk."""
    samples: list[Sample] = []
    refused: list[BadSample] = []
    try:
        for row in recipe.build(place):
            if isinstance(row, BadSample):
                refused.append(row)
            else:
                samples.append(row)
    except BadSample as bad:
        refused.append(bad)
    return samples, refused


def _with_facts(drafts: Iterable[Sample], outcomes: Outcomes) -> tuple[list[Sample], list[BadSample]]:
    """Fill in hashes; a sample with a visual that cannot be read is refused with the reader's reason."""
    finished = [with_facts(sample, outcomes) for sample in drafts]
    good = [one for one in finished if isinstance(one, Sample)]
    return good, [one for one in finished if isinstance(one, BadSample)]


def _content(ref: VisualRef, sha256: str | None) -> str:
    """What tells copies: the bytes, and which visual it is where one file or folder holds several."""
    return " ".join([str(sha256), *(str(ref.options.get(name, "")) for name in CHOOSING)])


def _loose_samples(
    candidates: Iterable[Candidate], outcomes: Outcomes, datasets: Iterable[Sample], *, seed: int, licence: str
) -> tuple[list[Sample], list[BadSample]]:
    """Describe what was read; a copy of a visual seen before belongs to that one's patient and split."""
    owners: dict[str, Sample] = {}
    for sample in datasets:
        for ref in sample.visuals():
            content = _content(ref, ref.sha256)
            if content not in owners or sample.split == "test":
                owners[content] = sample
    refused: list[BadSample] = []
    read: list[tuple[Candidate, Facts]] = []
    first: dict[str, str] = {}
    for candidate in candidates:
        facts = outcomes[key_of(candidate.ref)]
        if isinstance(facts, BadSample):
            refused.append(facts)
            continue
        content = _content(candidate.ref, facts.sha256)
        patient = owners[content].patient_id if content in owners else candidate.patient_id
        read.append((replace(candidate, patient_id=first.setdefault(content, patient)), facts))
    owned = {sample.patient_id: sample.split for sample in owners.values()}
    splits = split_patients((one.patient_id for one, _ in read if one.patient_id not in owned), seed=seed)
    samples: list[Sample] = []
    for one, facts in read:
        known = owners.get(_content(one.ref, facts.sha256))
        split = known.split if known else owned.get(one.patient_id) or splits[one.patient_id]
        official = known is not None and bool(known.metadata.get("official_split"))
        samples += describe(one, facts, split=split, licence=licence, official=official)
    return samples, refused


Gated = tuple[list[Sample], list[tuple[str, BadSample]]]


def _place(sample: Sample) -> str:
    refs = sample.visuals()
    return refs[0].path if refs else sample.source


def _unique(samples: list[Sample]) -> Gated:
    """Refuse a second sample of the same id (the same dataset lying in two places)."""
    kept: dict[str, Sample] = {}
    stopped: list[tuple[str, BadSample]] = []
    for sample in samples:
        if sample.sample_id not in kept:
            kept[sample.sample_id] = sample
            continue
        bad = BadSample(
            f"sample_id {sample.sample_id!r} occurs twice",
            where=_place(sample),
            mend="remove the second copy of the dataset or row",
            sample_id=sample.sample_id,
        )
        stopped.append((sample.source, bad))
    return list(kept.values()), stopped


def _asked(sample: Sample) -> tuple[tuple[str, ...], str]:
    """The pictures and the first question, spelling and "Answer yes or no." aside."""
    text = sample.turns[0].text
    bare = re.sub(r"\s*Answer [^.]*\.\s*$", "", text)
    return tuple(_content(ref, ref.sha256) for ref in sample.visuals()), re.sub(r"\W+", " ", bare).strip().lower()


def _no_test_in_train(samples: list[Sample]) -> Gated:
    """Refuse a training row that asks what a public test row asks about the same pictures."""
    public = {_asked(s): s.sample_id for s in samples if s.split == "test" and s.metadata.get("official_split")}
    kept: list[Sample] = []
    stopped: list[tuple[str, BadSample]] = []
    for sample in samples:
        test = public.get(_asked(sample))
        if sample.split == "test" or test is None:
            kept.append(sample)
            continue
        bad = BadSample(
            f"asks what the public test row {test!r} asks about the same visuals",
            where=_place(sample),
            mend="keep it out of training",
            sample_id=sample.sample_id,
        )
        stopped.append((sample.source, bad))
    return kept, stopped


def _count(samples: list[Sample], quarantine: list[tuple[str, BadSample]], other: int) -> dict[str, Any]:
    kinds = Counter(kind for kind, _ in {(ref.kind, key_of(ref)) for s in samples for ref in s.visuals()})
    refused = Counter(source for source, _ in quarantine)
    splits: dict[str, Counter[str]] = {}
    for sample in samples:
        splits.setdefault(sample.source, Counter())[sample.split] += 1
    by_source = {
        source: {
            **{split: splits.get(source, Counter())[split] for split in ("train", "validation", "test")},
            "quarantined": refused[source],
        }
        for source in sorted({*splits, *refused})
    }
    return {
        "samples": len(samples),
        "images": kinds["image"],
        "volumes": kinds["volume"],
        "videos": kinds["video"],
        "quarantined": len(quarantine),
        "other_files": other,
        "by_source": by_source,
    }


def write_walk(result: WalkResult, out: Path) -> None:
    """Write the manifests into ``out``.

    train.jsonl, test_questions.jsonl, validation_questions.jsonl and test_reports.jsonl (the last two only when
    there are such rows), quarantine.jsonl and summary.json. Visuals stay where they are: paths are absolute.
    """
    with ManifestFolder(out, summary=result.counts) as folder:
        for sample in result.samples:
            folder.add(sample)
        for bad in result.quarantine:
            folder.refuse(bad, SOURCE)


def _show(result: WalkResult, out: Path) -> None:
    table = Table("source", "train", "validation", "test", "quarantined", title=f"written to {out}")
    for source, row in result.counts["by_source"].items():
        table.add_row(source, *(str(row[name]) for name in ("train", "validation", "test", "quarantined")))
    console = Console()
    console.print(table)
    names = ("samples", "images", "volumes", "videos", "quarantined", "other_files")
    console.print(", ".join(f"{name.replace('_', ' ')} {result.counts[name]}" for name in names))


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 when at least one sample came out, else 1."""
    parser = argparse.ArgumentParser(prog="python -m medvlm.data_recipes.walk", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of clinical files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the manifests")
    parser.add_argument("--workers", type=int, default=1, help="processes that read visuals")
    parser.add_argument("--seed", type=int, default=0, help="of the split of loose files")
    parser.add_argument("--licence", default=UNSTATED, help="licence of the loose files")
    parser.add_argument("--resample-gaps", action="store_true", help="read series with uneven slice distances")
    parser.add_argument("--progress", action="store_true", help="show the bar although this is no terminal")
    given = parser.parse_args(arguments)
    if not given.folder.is_dir():
        parser.error(f"{given.folder} is not a folder; give the folder that holds the files")
    result = walk_folder(
        given.folder,
        progress=given.progress or sys.stderr.isatty(),
        workers=given.workers,
        seed=given.seed,
        licence=given.licence,
        resample_gaps=given.resample_gaps,
    )
    write_walk(result, given.out)
    _show(result, given.out)
    return 0 if result.samples else 1


if __name__ == "__main__":
    raise SystemExit(main())
