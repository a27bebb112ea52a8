"""Visuals that belong to no dataset -> Samples whose text says only what the file itself tells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from medvlm.data_recipes.asking import ask
from medvlm.data_recipes.decoding import Facts
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers import sniff
from medvlm.data_recipes.readers.content import Format
from medvlm.data_recipes.sample import Sample, Split, VisualRef
from medvlm.data_recipes.series import group, hashed
from medvlm.model.visual import CANONICAL_ORIENTATION

SOURCE = "loose-files"
KINDS = ("image", "volume", "video")
SPOKEN = {
    "CR": "X-ray", "DX": "X-ray", "RG": "X-ray", "MG": "mammography", "CT": "CT", "MR": "MR", "US": "ultrasound",
    "PT": "PET", "NM": "nuclear medicine", "XA": "X-ray angiography", "RF": "fluoroscopy", "ES": "endoscopy",
    "OP": "ophthalmic photography", "OPT": "optical coherence tomography", "SM": "slide microscopy",
}  # fmt: skip
"""DICOM modality (PS3.3 C.7.3.1.1.1) -> the word a person says; OT, SC and the like tell nothing."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A loose visual before it is read: what to read and whose it is."""

    ref: VisualRef
    patient_id: str
    name: str
    where: str


def find_candidates(
    root: Path, loose: Iterable[tuple[Path, Format]], *, resample_gaps: bool = False
) -> tuple[list[Candidate], list[BadSample], int]:
    """Group DICOM series, tell the kind of every other file, and name the patient.

    The patient is the hashed PatientID where the file has one. Else it is the folder: files that lie together
    are kept together, because nothing tells their patients apart; a file directly in ``root`` stands alone.

    Returns:
        candidates; refused files; number of DICOMDIR files.
    """
    loose = list(loose)
    dicom = [path for path, found in loose if found == "dicom"]
    series, singles, directories, refused = group(dicom)
    gaps = {"resample_gaps": True} if resample_gaps else {}
    candidates = [
        Candidate(
            ref=VisualRef(
                kind="volume", path=str(one.folder.resolve()), options={"series_uid": one.series_uid, **gaps}
            ),
            patient_id=one.patient or _patient_of(one.headers[0].path, root),
            name=f"{one.folder.relative_to(root).as_posix()}#{hashed(one.series_uid)}",
            where=str(one.folder),
        )
        for one in series
    ]
    patients = {path: header.patient for path, header in singles if header is not None}
    rest = [path for path, _ in singles] + [path for path, found in loose if found != "dicom"]
    for path in sorted(rest):
        try:
            kind = sniff(path)
        except BadSample as bad:
            refused.append(bad)
            continue
        if kind is None:
            refused.append(
                BadSample(
                    "a file of a known format that holds no image (a report, a plan, a header alone)",
                    where=str(path),
                    mend="leave it out, or export the images again",
                )
            )
            continue
        candidates.append(
            Candidate(
                ref=VisualRef(kind=kind, path=str(path.resolve())),
                patient_id=patients.get(path) or _patient_of(path, root),
                name=path.relative_to(root).as_posix(),
                where=str(path),
            )
        )
    return candidates, refused, directories


def _patient_of(path: Path, root: Path) -> str:
    """Hashed, because folders and files are often named after people."""
    place = path.relative_to(root)
    alone = len(place.parts) == 1
    return f"{'file' if alone else 'folder'}/{hashed(place.stem if alone else place.parent.as_posix())}"


def describe(
    candidate: Candidate, facts: Facts, *, split: Split, licence: str, official: bool = False
) -> Iterator[Sample]:
    """Questions that the file itself answers: modality, else kind; and the slices of a volume.

    Args:
        official: the visual is a copy of one in a dataset whose authors published the split.
    """
    ref = VisualRef(
        kind=candidate.ref.kind, path=candidate.ref.path, sha256=facts.sha256, options=candidate.ref.options
    )
    spoken = SPOKEN.get(facts.modality)
    common = {
        "patient_id": candidate.patient_id,
        "source": SOURCE,
        "licence": licence,
        "split": split,
        "visuals": [ref],
        "where": candidate.where,
        "metadata": {"modality": facts.modality, **({"official_split": True} if official else {})},
    }
    if spoken is not None:
        yield ask(
            sample_id=f"{SOURCE}/{candidate.name}/modality",
            prompt="Which modality is this?",
            answers=[spoken],
            topic="modality",
            **common,  # type: ignore[arg-type]
        )
    else:
        yield ask(
            sample_id=f"{SOURCE}/{candidate.name}/kind",
            prompt="Is this an image, a volume or a video?",
            answers=[facts.kind],
            kind="closed",
            choices=KINDS,
            topic="kind",
            **common,  # type: ignore[arg-type]
        )
    if facts.kind == "volume":
        yield ask(
            sample_id=f"{SOURCE}/{candidate.name}/slices",
            # Readers turn a volume whose geometry is known to axial slices; else nobody knows what axis 0 is.
            prompt=f"How many {'axial ' if facts.orientation == CANONICAL_ORIENTATION else ''}slices does this "
            "volume have?",
            answers=[str(facts.length)],
            topic="count",
            **common,  # type: ignore[arg-type]
        )
