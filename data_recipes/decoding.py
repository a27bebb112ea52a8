"""Read every visual once, so that what a manifest names is known to load; keep only facts, never pixels."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import sha256_of
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.sample import VisualRef
from medvlm.model.visual import Kind, Video, Volume, kind_of


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What one reading of a visual told.

    Attributes:
        kind: what the reader returned.
        length: slices along axis 0 of a volume, frames shown of a video, 1 for an image.
        orientation: of the axes, as medvlm.model.visual spells it; None when unknown.
        sha256: of the file or folder.
    """

    kind: Kind
    modality: str
    length: int
    orientation: str | None
    sha256: str


def key_of(ref: VisualRef) -> tuple[str, str]:
    """Two refs with the same key show the same pixels."""
    return ref.path, json.dumps(ref.options, sort_keys=True)


def decode(ref: VisualRef) -> Facts | BadSample:
    """Read the pixels of an absolute ref; a refusal is returned, not raised, so that it crosses processes."""
    path = Path(ref.path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders warn about tags and chunks; what matters they raise
            visual = read(ref, path.parent)
    except BadSample as bad:
        return bad
    except Exception as error:
        # A fault of the reader, not of the data: it must be seen, and with the file that shows it.
        error.add_note(f"while reading {path}")
        raise
    length, orientation = 1, None
    match visual:
        case Volume():
            length, orientation, values = visual.voxels.shape[0], visual.orientation, visual.voxels
        case Video():
            length, values = visual.frames.shape[0], visual.frames
        case _:
            orientation, values = visual.orientation, visual.pixels
    if values.min() == values.max():
        return BadSample(
            f"all {values.size} values are {values.flat[0]:g}: there is nothing to see",
            where=str(path),
            mend="export the pixels again, or leave the file out",
        )
    return Facts(
        kind=kind_of(visual),
        modality=visual.modality,
        length=length,
        orientation=orientation,
        sha256=hash_once(path),
    )


def hash_once(path: Path) -> str:
    """SHA-256 of a folder, anew; of a file, once per process for all visuals that it holds (an .npz holds thousands).

    Raises:
        FileNotFoundError: nothing there.
    """
    if path.is_dir():
        return sha256_of(path)
    status = path.stat()
    return _hash_of_file(str(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _hash_of_file(name: str, size: int, changed: int) -> str:
    """Size and time of change are part of the key: a file that was written anew is hashed anew."""
    return sha256_of(name)
