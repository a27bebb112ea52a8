"""Saved states: folders that are whole or absent, found by their manifest, refused when they belong elsewhere."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
HASHED_BYTES = 64 * 2**20
"""Files up to this size are hashed; of larger ones the size is compared, or saving would take as long again."""

_PREFIX = "step-"
_UNFINISHED = ".unfinished"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A complete saved state.

    Attributes:
        step: optimizer steps that were done in the stage.
        fingerprints: what the state belongs to, such as {"configuration": ..., "data": ...}.
        metadata: what the caller wants back, plain JSON (state of the loader, tokens seen).
    """

    path: Path
    step: int
    fingerprints: dict[str, str]
    metadata: dict[str, Any]


def _alone() -> None:
    """The barrier of a single process."""


def write_folder(
    target: Path,
    write: Callable[[Path], None],
    *,
    rank: int = 0,
    barrier: Callable[[], None] = _alone,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """Make folder ``target`` so that it is seen either whole or not at all, also after a power cut.

    All ranks write into one temporary folder beside it; rank 0 flushes every file to disk and renames the folder.
    An earlier ``target`` is replaced. What a killed process left behind is removed by the next call.

    Args:
        write: called on every rank with the temporary folder, which exists.
        barrier: waits for all ranks.
        finish: called on rank 0 after all ranks have written.
    """
    unfinished = target.with_name(target.name + _UNFINISHED)
    if rank == 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
    barrier()
    write(unfinished)
    barrier()
    if rank == 0:
        if finish is not None:
            finish(unfinished)
        _flush(unfinished)
        if target.exists():
            replaced = target.with_name(target.name + ".replaced")
            shutil.rmtree(replaced, ignore_errors=True)
            target.rename(replaced)
            unfinished.rename(target)
            shutil.rmtree(replaced)
        else:
            unfinished.rename(target)
        _flush_one(target.parent)
    barrier()


def _flush(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _flush_one(path)


def _flush_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_checkpoint(
    folder: Path,
    step: int,
    write: Callable[[Path], None],
    *,
    fingerprints: Mapping[str, str],
    metadata: Mapping[str, Any],
    keep: int,
    rank: int = 0,
    barrier: Callable[[], None] = _alone,
) -> Path:
    """Save a state as ``folder/step-XXXXXXXX`` and remove all but the newest ``keep``; all ranks must call it.

    Args:
        write: called on every rank with the folder to write into, such as ``Engine.save_state``.

    Returns:
        The folder of the saved state.
    """

    def finish(path: Path) -> None:
        files = {}
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            size = file.stat().st_size
            files[file.relative_to(path).as_posix()] = {
                "bytes": size,
                "sha256": _sha256(file) if size <= HASHED_BYTES else None,
            }
        manifest = {"step": step, "fingerprints": dict(fingerprints), "metadata": dict(metadata), "files": files}
        (path / MANIFEST).write_text(json.dumps(manifest, indent=1, allow_nan=False), encoding="utf-8")

    target = folder / f"{_PREFIX}{step:08d}"
    write_folder(target, write, rank=rank, barrier=barrier, finish=finish)
    if rank == 0:
        _remove_old(folder, keep)
    return target


def _step_folders(folder: Path) -> list[Path]:
    """Folders named as saved states, newest step first."""
    found = [p for p in folder.glob(f"{_PREFIX}*") if p.is_dir() and p.name[len(_PREFIX) :].isdigit()]
    return sorted(found, key=lambda p: int(p.name[len(_PREFIX) :]), reverse=True)


def _remove_old(folder: Path, keep: int) -> None:
    for path in _step_folders(folder)[keep:]:
        # The manifest goes first: a removal that is cut short leaves nothing that looks complete.
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path)


def _read(path: Path) -> tuple[Checkpoint, dict[str, dict[str, Any]]] | str:
    """The checkpoint and its files, or why it is not complete. Compares sizes, not contents."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"{path} has no {MANIFEST}"
    except json.JSONDecodeError as error:
        return f"{path / MANIFEST} is not JSON: {error}"
    for name, entry in manifest["files"].items():
        file = path / name
        if not file.is_file():
            return f"{file} is missing"
        if file.stat().st_size != entry["bytes"]:
            return f"{file} has {file.stat().st_size} bytes, {entry['bytes']} were written"
    checkpoint = Checkpoint(
        path=path, step=manifest["step"], fingerprints=manifest["fingerprints"], metadata=manifest["metadata"]
    )
    return checkpoint, manifest["files"]


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The complete saved state of the highest step in ``folder``; incomplete ones are passed over with a warning."""
    for path in _step_folders(folder):
        found = _read(path)
        if not isinstance(found, str):
            return found[0]
        _log.warning("passed over an incomplete saved state: %s", found)
    return None


def check_checkpoint(checkpoint: Checkpoint, fingerprints: Mapping[str, str]) -> None:
    """Check contents against their hashes, and that the state belongs to this training. Call it before loading.

    Raises:
        ValueError: names the damaged file, or which fingerprint (configuration, data) differs.
    """
    found = _read(checkpoint.path)
    if isinstance(found, str):
        raise ValueError(f"{found}; resume from another saved state")
    for name, entry in found[1].items():
        if entry["sha256"] is not None and _sha256(checkpoint.path / name) != entry["sha256"]:
            raise ValueError(
                f"{checkpoint.path / name} has changed since it was written; remove {checkpoint.path} and resume from "
                "the saved state before it"
            )
    saved = checkpoint.fingerprints
    differ = [n for n in sorted(set(saved) | set(fingerprints)) if saved.get(n) != fingerprints.get(n)]
    if differ:
        raise ValueError(
            f"{checkpoint.path} was saved with another {' and '.join(differ)}; resume with what it was saved with, or "
            "start anew in another output_dir"
        )
