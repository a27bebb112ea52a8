"""What one reading of a visual tells the checks: hashes, size, spacing, or why it cannot be read."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medvlm.data_recipes.checks.hashing import hashes_of
from medvlm.data_recipes.checks.private import Private, private_tags, private_text
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import sha256_of
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.sample import VisualRef
from medvlm.model.visual import Image, Video, Visual, Volume

LOOKS = 1
"""Version of these facts: journals of another one are not used."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """Facts of one visual.

    Attributes:
        key: of the ref and of the state of its files (path, size, time of change, options); see ``key_of``.
        path: of the file or folder.
        sha256: of the file or folder; None when there is none.
        pixels: SHA-256 of the decoded values with their shape; None when they cannot be read.
        hashes: perceptual hashes of 256 bits in hexadecimal: of an image, of the middle slices of a volume along each
            axis, of frames of a video; those of an even picture are left out.
        shape: of the array, without channels.
        spacing_mm: of its axes, None where the file states none.
        modality: as the reader gives it.
        tags: names of DICOM tags that hold identifying values (the values are not kept).
        burned: kinds of text found in the pixels; None when OCR was not asked for.
        refusal: reason, where and mend, when the visual cannot be read or shows nothing.
    """

    key: str
    path: str
    sha256: str | None = None
    pixels: str | None = None
    hashes: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] | None = None
    modality: str = "unknown"
    tags: tuple[str, ...] = ()
    burned: tuple[str, ...] | None = None
    refusal: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """One line of visuals.jsonl."""
        return asdict(self)


def look_from_json(row: dict[str, Any]) -> Look:
    """The Look of one line of visuals.jsonl.

    Raises:
        KeyError, TypeError: not a line that ``Look.to_json`` made.
    """
    lists = {"hashes", "shape", "spacing_mm", "tags", "burned"}
    facts: dict[str, Any] = {k: tuple(v) if k in lists and v is not None else v for k, v in row.items()}
    return Look(**facts)


def key_of(ref: VisualRef, private: Private) -> str:
    """Changes when the ref, a file under it, or what is looked for changes."""
    path = Path(ref.path)
    try:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        states: list[Any] = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files if p.exists()]
        states += [f"no right to read {p.name}" for p in files if p.exists() and not os.access(p, os.R_OK)]
    except OSError as error:
        states = [f"error {error.errno}"]  # such as a folder that cannot be entered; ``look`` says it
    text = json.dumps([LOOKS, ref.kind, ref.path, ref.options, states, asdict(private)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def look(ref: VisualRef, private: Private) -> Look:
    """Read an absolute ref; a refusal is part of the answer, so that it crosses processes and stays in the journal."""
    path, key = Path(ref.path), key_of(ref, private)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders warn about tags and chunks; what matters they raise
            visual = read(ref, path.parent)
            sha256 = sha256_of(path)
            tags = private_tags(path) if private.tags else ()
            burned = private_text(visual) if private.pixels else None
    except BadSample as bad:
        return Look(key=key, path=ref.path, refusal={"reason": bad.reason, "where": bad.where, "mend": bad.mend})
    except OSError as error:
        reason, mend = f"cannot be read ({error.strerror or error})", "check its permissions and the disk"
        return Look(key=key, path=ref.path, refusal={"reason": reason, "where": ref.path, "mend": mend})
    except Exception as error:
        # A fault of the reader, not of the data: it must be seen, and with the file that shows it.
        error.add_note(f"while reading {path}")
        raise
    values = values_of(visual)
    facts: dict[str, Any] = {
        "key": key, "path": ref.path, "sha256": sha256, "modality": visual.modality, "spacing_mm": visual.spacing_mm,
        "shape": _space(visual), "tags": tags, "burned": burned,
    }  # fmt: skip
    if values.min() == values.max():
        refusal = {
            "reason": f"all {values.size} values are {values.flat[0]:g}: there is nothing to see",
            "where": ref.path,
            "mend": "export the pixels again, or leave the file out",
        }
        return Look(**facts, refusal=refusal)
    content = hashlib.sha256(f"{values.shape}".encode())
    content.update(np.ascontiguousarray(values).data)
    return Look(**facts, pixels=content.hexdigest(), hashes=hashes_of(visual))


def values_of(visual: Visual) -> np.ndarray:
    """The numbers of a visual, whatever it is."""
    match visual:
        case Volume():
            return visual.voxels
        case Video():
            return visual.frames
    return visual.pixels


def _space(visual: Visual) -> tuple[int, ...]:
    """Rows and columns of an image; depth before them of a volume; frames before them of a video."""
    shape = values_of(visual).shape
    return shape[1:] if isinstance(visual, Image) else shape if isinstance(visual, Volume) else (shape[0], *shape[2:])
