"""One sample as the members of a shard: its row, and one file for each distinct visual."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from medvlm.data_recipes.decoding import key_of
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import sha256_of
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.readers.content import format_of, head_of
from medvlm.data_recipes.sample import Sample, Turn, VisualRef, to_json, visuals_of
from medvlm.data_recipes.shards.arrays import Precision, npy_bytes, to_array
from medvlm.data_recipes.shards.resolution import Resolution, resample
from medvlm.model.visual import Image, Video, Visual, Volume

_PICTURES = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"GIF8": "gif", b"BM": "bmp", b"RIFF": "webp"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How visuals are stored.

    Attributes:
        root: where relative paths of visuals start from.
    """

    root: Path
    resolution: Resolution
    precision: Precision


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file of a tar: ``name`` is "<key>.json" or "<key>.<n>.<type>"."""

    name: str
    data: bytes


def map_refs(sample: Sample, change: Callable[[VisualRef], VisualRef]) -> Sample:
    """``sample`` with every visual, of a preference too, passed through ``change``."""

    def changed(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
        return tuple(
            replace(turn, content=tuple(change(p) if isinstance(p, VisualRef) else p for p in turn.content))
            for turn in turns
        )

    own, preference = changed(sample.turns), sample.preference
    if preference is not None:
        preference = replace(preference, chosen=changed(preference.chosen), rejected=changed(preference.rejected))
    return replace(sample, turns=own, preference=preference)


def refs_of(sample: Sample) -> Iterator[VisualRef]:
    """Every visual, also those that only a preference's sides show, in the order in which they stand."""
    preference = sample.preference
    sides = () if preference is None else (preference.chosen, preference.rejected)
    for turns in (sample.turns, *sides):
        yield from visuals_of(turns)


def encode_sample(sample: Sample, key: str, settings: Settings, *, where: str) -> list[Member]:
    """The row, then its visuals; a visual that the row shows twice is stored once.

    Args:
        key: of the sample in the shard; no dot in it, because WebDataset ends the key there.
        where: "path:row" of the manifest, named in complaints.

    Raises:
        BadSample: a visual that is missing, has changed since the manifest was made, or cannot be read or stored.
    """
    stored: dict[tuple[str, str], VisualRef] = {}
    visuals: list[Member] = []
    for ref in refs_of(sample):
        if key_of(ref) in stored:
            continue
        try:
            data, suffix, options = encode_visual(ref, settings)
        except BadSample as bad:
            raise BadSample(
                f"{ref.kind} {ref.path}: {bad.reason}", where=where, mend=bad.mend, sample_id=sample.sample_id
            ) from bad
        name = f"{key}.{len(visuals)}.{suffix}"
        visuals.append(Member(name=name, data=data))
        stored[key_of(ref)] = replace(ref, path=name, sha256=hashlib.sha256(data).hexdigest(), options=options)
    row = to_json(map_refs(sample, lambda ref: stored[key_of(ref)]))
    return [Member(name=f"{key}.json", data=json.dumps(row, ensure_ascii=False).encode()), *visuals]


def encode_visual(ref: VisualRef, settings: Settings) -> tuple[bytes, str, dict]:
    """(bytes, type, reader options) of one visual.

    The bytes of the source where it is one file and nothing is asked of its kind, or where it is an 8-bit picture
    that is within the limits already; else an .npy of the resampled visual.

    Raises:
        BadSample: as :func:`encode_sample`.
    """
    path = settings.root / ref.path
    if ref.sha256 is not None and path.exists() and sha256_of(path) != ref.sha256:
        raise BadSample("the file has changed since it was hashed", where=str(path), mend="rebuild the manifest")
    asked = ref
    limit = settings.resolution.video_frames
    if ref.kind == "video" and limit is not None and "max_frames" not in ref.options:
        asked = replace(ref, options={**ref.options, "max_frames": limit})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # decoders warn about tags and chunks; what matters they raise
        visual = read(asked, settings.root)
    try:
        smaller = resample(visual, settings.resolution)
    except ValueError as error:
        raise BadSample(str(error), where=str(path), mend="ask for a size in voxels, or leave it out") from error
    suffix = _kept_type(ref, path, visual, untouched=smaller is visual, settings=settings)
    if suffix is not None:
        return path.read_bytes(), suffix, {**ref.options, "stored": "source", "shape": _shape(visual)}
    array, options = to_array(smaller, settings.precision)
    return npy_bytes(array), "npy", {**options, "stored": "array", "shape": _shape(smaller)}


def _shape(visual: Visual) -> list[int]:
    match visual:
        case Image():
            return [1, *visual.pixels.shape[1:]]
        case Volume():
            return list(visual.voxels.shape)
        case Video():
            return [len(visual.frames), *visual.frames.shape[2:]]


def _kept_type(ref: VisualRef, path: Path, visual: Visual, *, untouched: bool, settings: Settings) -> str | None:
    """The name ending under which the source's own bytes are stored; None when they are not."""
    if not path.is_file() or not untouched:
        return None
    kind, head = format_of(path), head_of(path)
    if not settings.resolution.limits(ref.kind):
        return _source_type(kind, head, path)
    eight_bit = isinstance(visual, Image) and visual.unit == "display"
    return _source_type(kind, head, path) if kind == "picture" and eight_bit else None


def _source_type(kind: str | None, head: bytes, path: Path) -> str | None:
    """None for what is only half of a pair of files (.hdr and .img, .PAR and .REC)."""
    match kind:
        case "picture":
            return next((name for magic, name in _PICTURES.items() if head.startswith(magic)), "picture")
        case "dicom":
            return "dcm"
        case "clip":
            return "video"
        case "array":
            return "source_npy"
        case "nifti":
            packed = ".gz" if path.open("rb").read(2) == b"\x1f\x8b" else ""
            if head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0":
                return f"nii{packed}"
            return f"mgh{packed}" if head[:4] == b"\0\0\0\x01" else None
    return None
