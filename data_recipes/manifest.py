"""Manifests on disk: write, read, hash and verify JSONL files of Samples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Sample, VisualRef, read_jsonl, to_json, visuals_of
from medvlm.data_recipes.whole_file import writing


def write_atomic(path: str | Path, text: str | Iterable[str]) -> None:
    """Write ``text`` so that ``path`` holds either the old content or all of the new one, even after a crash.

    Args:
        text: the whole content, or its pieces, which are written as they come and never held together.
    """
    with writing(Path(path)) as file:
        file.writelines(piece.encode() for piece in ([text] if isinstance(text, str) else text))


def _lines(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    return (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_manifest(path: str | Path, samples: Iterable[Sample]) -> None:
    """Write one JSON line per sample."""
    write_atomic(path, _lines(to_json(sample) for sample in samples))


def write_quarantine(path: str | Path, quarantine: Iterable[BadSample]) -> None:
    """Write one JSON line per refused sample: where, reason, mend, sample_id."""
    write_atomic(path, _lines(bad.to_dict() for bad in quarantine))


def read_manifest(path: str | Path) -> tuple[list[Sample], list[BadSample]]:
    """Read a whole manifest: the samples, and the rows that are refused with their reasons."""
    samples: list[Sample] = []
    refused: list[BadSample] = []
    for row in read_jsonl(path):
        if isinstance(row, BadSample):
            refused.append(row)
        else:
            samples.append(row)
    return samples, refused


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, or of the sorted lines "name sha256" of the files of a series folder, in hexadecimal.

    Raises:
        FileNotFoundError: nothing there.
    """
    path = Path(path)
    if path.is_dir():
        listing = "".join(
            f"{file.relative_to(path).as_posix()} {sha256_of(file)}\n"
            for file in sorted(path.rglob("*"))
            if file.is_file()
        )
        return hashlib.sha256(listing.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resolve(ref: VisualRef, manifest_path: str | Path) -> Path:
    """Where the visual lies: ``ref.path`` when absolute, else relative to the manifest's folder."""
    path = Path(ref.path)
    return path if path.is_absolute() else Path(manifest_path).parent / path


def verify(
    path: str | Path, *others: str | Path, hashes: bool = False, allow_official: bool = False
) -> list[BadSample]:
    """Check one or more manifests that belong together; what is wrong comes back, an empty list is good.

    Refused rows, sample ids that occur twice, patients in two splits, and missing or changed files.

    Args:
        others: the manifests that share patients with it (train, validation, test).
        hashes: also compare every file with its ``sha256`` (reads all of them).
        allow_official: do not complain about patients whom the authors' own published split shares between
            train and test (samples with metadata ``official_split``; VQA-RAD is the known case).
    """
    problems: list[BadSample] = []
    ids: dict[str, str] = {}
    seen: dict[str, dict[str, tuple[str, bool]]] = {}
    checked: set[Path] = set()
    for manifest in (path, *others):
        for number, row in enumerate(read_jsonl(manifest), start=1):
            if isinstance(row, BadSample):
                problems.append(row)
                continue
            where = f"{manifest}:{number}"
            if row.sample_id in ids:
                problems.append(
                    BadSample(
                        f"sample_id {row.sample_id!r} stands already at {ids[row.sample_id]}",
                        where=where,
                        mend="give each sample its own id",
                        sample_id=row.sample_id,
                    )
                )
            ids.setdefault(row.sample_id, where)
            official = bool(row.metadata.get("official_split"))
            splits = seen.setdefault(row.patient_id, {})
            splits[row.split] = (where, official and splits.get(row.split, (where, True))[1])
            problems += _check_files(row, Path(manifest), where, checked, hashes)
    return problems + _check_patients(seen, allow_official)


def _check_patients(seen: dict[str, dict[str, tuple[str, bool]]], allow_official: bool) -> list[BadSample]:
    problems = []
    for patient, splits in seen.items():
        if len(splits) < 2 or (allow_official and all(official for _, official in splits.values())):
            continue
        places = ", ".join(f"{split} ({where})" for split, (where, _) in sorted(splits.items()))
        problems.append(
            BadSample(
                f"patient {patient!r} is in {len(splits)} splits: {places}",
                where=next(iter(splits.values()))[0],
                mend="send all samples of a patient to one split",
            )
        )
    return problems


def _check_files(sample: Sample, manifest: Path, where: str, checked: set[Path], hashes: bool) -> list[BadSample]:
    problems = []
    for side in sample.sides():
        for ref in visuals_of(side):
            path = resolve(ref, manifest)
            if path in checked:
                continue
            checked.add(path)
            if not path.exists():
                reason, mend = f"the {ref.kind} {path} is missing", "restore the file or drop the row"
            elif hashes and ref.sha256 is not None and sha256_of(path) != ref.sha256:
                reason, mend = f"the {ref.kind} {path} has changed since it was hashed", "rebuild the manifest"
            else:
                continue
            problems.append(BadSample(reason, where=where, mend=mend, sample_id=sample.sample_id))
    return problems
