"""Saved states on disk: folders that are whole or absent, known by their manifest, refused where they do not belong."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
HASH = ".sha256"
"""Ending of the note that whoever writes a large file leaves beside it, so that nobody must read it again."""

_PREFIX = "step-"
_UNFINISHED = ".unfinished"
_DAMAGED = ".damaged"
CONVERTED = ".universal"
"""Ending of what was made from a state for another number of processes; it goes when the state goes."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A complete saved state.

    Attributes:
        step: optimizer steps that were done in the stage.
        fingerprints: what the state belongs to, such as {"configuration": ..., "data": ...}.
        metadata: what the caller wants back, plain JSON (state of the loader, number of processes).
        files: name -> bytes and SHA-256.
    """

    path: Path
    step: int
    fingerprints: dict[str, str]
    metadata: dict[str, Any]
    files: dict[str, dict[str, Any]]


def begin_folder(target: Path) -> Path:
    """The empty folder that what will be ``target`` is written into; what a killed process left there is removed."""
    unfinished = target.with_name(target.name + _UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    return unfinished


def commit_folder(unfinished: Path, target: Path) -> None:
    """Flush all files of ``unfinished`` to disk and rename it; an earlier ``target`` is replaced."""
    for path in [*unfinished.rglob("*"), unfinished]:
        _flush(path)
    if target.exists():
        replaced = target.with_name(target.name + ".replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        target.rename(replaced)
        unfinished.rename(target)
        shutil.rmtree(replaced)
    else:
        unfinished.rename(target)
    _flush(target.parent)


def write_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Make folder ``target`` so that it is seen either whole or not at all, also after a power cut.

    An earlier ``target`` is replaced. What a killed process left behind is removed by the next call.

    Args:
        write: called with a temporary folder beside it, which exists and is empty.
    """
    unfinished = begin_folder(target)
    write(unfinished)
    commit_folder(unfinished, target)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_folder(folder: Path, step: int) -> Path:
    """Where the state after ``step`` steps lies: ``folder/step-XXXXXXXX``."""
    return folder / f"{_PREFIX}{step:08d}"


def commit_state(
    unfinished: Path, target: Path, *, step: int, fingerprints: Mapping[str, str], metadata: Mapping[str, Any]
) -> None:
    """Write the manifest of what lies in ``unfinished`` and publish it as ``target``."""
    files = {}
    for file in sorted(p for p in unfinished.rglob("*") if p.is_file() and p.suffix != HASH):
        note = file.with_name(file.name + HASH)
        files[file.relative_to(unfinished).as_posix()] = {
            "bytes": file.stat().st_size,
            "sha256": note.read_text(encoding="ascii") if note.is_file() else sha256(file),
        }
        note.unlink(missing_ok=True)
    manifest = {"step": step, "fingerprints": dict(fingerprints), "metadata": dict(metadata), "files": files}
    (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=1, allow_nan=False), encoding="utf-8")
    shutil.rmtree(target.with_name(target.name + CONVERTED), ignore_errors=True)  # made from another state of this step
    commit_folder(unfinished, target)


def abandon_state(unfinished: Path) -> None:
    """Remove what a save that failed has written, which gives its space back."""
    shutil.rmtree(unfinished, ignore_errors=True)


def state_folders(folder: Path) -> list[Path]:
    """Folders named as saved states, newest step first."""
    found = [p for p in folder.glob(f"{_PREFIX}*") if p.is_dir() and p.name[len(_PREFIX) :].isdigit()]
    return sorted(found, key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.name[len(_PREFIX) :])


def remove_old(folder: Path, keep: int, keep_every: int | None = None) -> None:
    """Remove all but the newest ``keep`` states and those of every ``keep_every``-th step."""
    states = state_folders(folder)
    permanent = [p for p in states if keep_every is not None and _step(p) % keep_every == 0]
    for path in [p for p in states if p not in permanent][keep:]:
        # The manifest goes first: a removal that is cut short leaves nothing that looks complete.
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path)
    for converted in folder.glob(f"{_PREFIX}*{CONVERTED}"):
        if not converted.with_suffix("").is_dir():
            shutil.rmtree(converted, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left behind; nobody may be writing."""
    for path in folder.glob(f"{_PREFIX}*{_UNFINISHED}"):
        shutil.rmtree(path, ignore_errors=True)


def set_damaged_aside(path: Path) -> Path:
    """Rename a state that cannot be read, so that it neither counts among the newest nor stands in the way."""
    aside = path.with_name(path.name + _DAMAGED)
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    return aside


def read_state(path: Path) -> Checkpoint | str:
    """The state at ``path``, or why it is not complete. Compares sizes, not contents."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"{path} has no {MANIFEST}"
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        return f"{path / MANIFEST} is not JSON: {error}"
    missing = {"step", "fingerprints", "metadata", "files"} - set(manifest)
    if missing:
        return f"{path / MANIFEST} lacks {sorted(missing)[0]!r}"
    for name, entry in manifest["files"].items():
        file = path / name
        if not file.is_file():
            return f"{file} is missing"
        if file.stat().st_size != entry["bytes"]:
            return f"{file} has {file.stat().st_size} bytes, {entry['bytes']} were written"
    return Checkpoint(path=path, **manifest)


def changed_file(checkpoint: Checkpoint, *, part: int = 0, parts: int = 1) -> str | None:
    """Which file has changed since it was written, among every ``parts``-th from number ``part`` on; None: none has."""
    for name, entry in list(checkpoint.files.items())[part::parts]:
        # States of older releases have no hash of files over 64 MiB.
        if entry["sha256"] is not None and sha256(checkpoint.path / name) != entry["sha256"]:
            return f"{checkpoint.path / name} has changed since it was written"
    return None


def check_belongs(checkpoint: Checkpoint, fingerprints: Mapping[str, str]) -> None:
    """Refuse a state of another training.

    Raises:
        ValueError: says which fingerprint (configuration, data) differs.
    """
    saved = checkpoint.fingerprints
    differ = [n for n in sorted(set(saved) | set(fingerprints)) if saved.get(n) != fingerprints.get(n)]
    if differ:
        raise ValueError(
            f"{checkpoint.path} was saved with another {' and '.join(differ)}; resume with what it was saved with, or "
            "start anew in another output_dir"
        )
