"""Write a data set of virtual patients: ``python -m medvlm.data_recipes.phantoms.write --out DIR --patients N``."""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from medvlm.data_recipes.manifest import sha256_of, write_atomic, write_manifest
from medvlm.data_recipes.phantoms.cine import render_cine
from medvlm.data_recipes.phantoms.ct import draw_spacing, render_ct
from medvlm.data_recipes.phantoms.files import ct_series, dx_bytes, mp4_bytes, nifti_bytes, png_bytes, put
from medvlm.data_recipes.phantoms.patient import VirtualPatient, draw_patient, split_patients, streams
from medvlm.data_recipes.phantoms.radiograph import render_prior, render_radiograph
from medvlm.data_recipes.phantoms.rows import MANIFESTS, Row, Visuals, grounding_rows, rows_of
from medvlm.data_recipes.sample import Sample, Split, VisualRef

VERSION = 4
"""Raised whenever the same seed would give other bytes."""

FRACTIONS = (0.80, 0.05, 0.15)
"""Train, validation, test."""

DICOM_RADIOGRAPH_EVERY, DICOM_CT_EVERY = 5, 4


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What a worker needs to make one patient; small, because it travels between processes."""

    out: Path
    seed: int
    index: int
    split: Split


def _write_radiographs(
    job: _Job, patient: VirtualPatient, generators: dict[str, np.random.Generator]
) -> tuple[VisualRef, VisualRef | None, float]:
    """The current radiograph, the prior where there is one, and their pixel spacing in millimetres."""
    spacing = round(float(generators["radiograph"].uniform(2.7, 2.9)), 3)
    pictures = {"radiograph": render_radiograph(patient, spacing, generators["radiograph"])}
    if patient.has_prior:
        pictures["prior"] = render_prior(patient, spacing, generators["prior"])
    refs = {}
    for name, picture in pictures.items():
        if job.index % DICOM_RADIOGRAPH_EVERY == 0:
            words = (job.seed, patient.patient_id, name)
            suffix, data = (
                "dcm",
                dx_bytes(picture, spacing_mm=spacing, patient_id=patient.patient_id, words=words),
            )
        else:
            suffix, data = "png", png_bytes(picture)
        path = f"images/{patient.patient_id}/{name}.{suffix}"
        refs[name] = VisualRef(kind="image", path=path, sha256=put(job.out / path, data))
    return refs["radiograph"], refs.get("prior"), spacing


def _write_ct(
    job: _Job, patient: VirtualPatient, rng: np.random.Generator
) -> tuple[VisualRef, tuple[float, float, float]]:
    """The CT volume and its (slice, row, column) spacing in millimetres."""
    spacing = draw_spacing(rng)
    hu = render_ct(patient, spacing, rng)
    folder = f"images/{patient.patient_id}"
    if job.index % DICOM_CT_EVERY == 0:
        words, order = (job.seed, patient.patient_id), rng.permutation(len(hu))
        files = ct_series(hu, spacing_mm=spacing, patient_id=patient.patient_id, words=words, order=order)
        for name, data in files:
            put(job.out / folder / "ct" / name, data)
        return VisualRef(kind="volume", path=f"{folder}/ct", sha256=sha256_of(job.out / folder / "ct")), spacing
    path = f"{folder}/ct.nii.gz"
    digest = put(job.out / path, nifti_bytes(hu, spacing_mm=spacing))
    # NIfTI cannot say that its numbers are Hounsfield units; the manifest does.
    return VisualRef(kind="volume", path=path, sha256=digest, options={"modality": "CT", "unit": "HU"}), spacing


def _make_patient(job: _Job) -> list[Row]:
    """Draw, render and write one patient; a pure function of the job, whichever process runs it."""
    generators = streams(job.seed, job.index)
    patient = draw_patient(job.index, split=job.split, rng=generators["patient"])
    radiograph, prior, radiograph_mm = _write_radiographs(job, patient, generators)
    cine = None
    if patient.has_clip and patient.cine_findings is not None:
        path = f"images/{patient.patient_id}/cine.mp4"
        data = mp4_bytes(render_cine(patient.cine_findings, generators["cine"]))
        cine = VisualRef(kind="video", path=path, sha256=put(job.out / path, data), options={"modality": "US"})
    ct, ct_mm = _write_ct(job, patient, generators["ct"])
    visuals = Visuals(radiograph=radiograph, prior=prior, ct=ct, cine=cine)
    rows = rows_of(patient, visuals, generators["language"])
    return rows + grounding_rows(patient, visuals, radiograph_mm, ct_mm)


@contextmanager
def _results(jobs: list[_Job], workers: int) -> Iterator[Iterator[list[Row]]]:
    """Rows of each patient in patient order, from this process or from ``workers`` spawned ones."""
    if workers == 1:
        yield map(_make_patient, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield pool.imap(_make_patient, jobs, chunksize=8)


def _check(out: Path, patients: int, workers: int) -> None:
    if patients < 1 or workers < 1:
        raise ValueError(f"patients and workers must be at least 1, got {patients} and {workers}; raise them")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(
            f"{out} exists and is not an empty folder; phantoms write into a new or empty folder only: "
            "choose another or delete it"
        )


def write_phantoms(
    out: Path,
    *,
    patients: int,
    seed: int,
    workers: int = 1,
    progress: bool = False,
    fractions: tuple[float, float, float] = FRACTIONS,
) -> dict[str, int]:
    """Write ``patients`` virtual patients and their manifests; the same seed gives the same bytes of every file.

    Args:
        out: new or empty folder. ``phantoms.json`` is written last: a folder without it is incomplete.
        seed: with the patient's number, the only source of randomness.
        workers: processes; changes the time, never the bytes.
        progress: show a progress bar even when the output is not a terminal.
        fractions: of patients in train, validation and test.

    Returns:
        Number of rows of each manifest, of patients and of pictures of each kind.

    Raises:
        ValueError: a number out of range, or ``out`` not empty.
    """
    out = Path(out).absolute()
    _check(out, patients, workers)
    splits = split_patients(patients, seed, fractions)
    jobs = [_Job(out=out, seed=seed, index=index, split=split) for index, split in enumerate(splits)]
    manifests: dict[str, list[Sample]] = {name: [] for name in MANIFESTS}
    pictures: Counter[str] = Counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns)
    bar.disable = not (progress or bar.console.is_terminal)
    with bar, _results(jobs, workers) as results:
        for rows in bar.track(results, total=patients, description="virtual patients"):
            for name, sample in rows:
                manifests[name].append(sample)
            refs = {ref.path: ref.kind for _, sample in rows for ref in sample.visuals()}
            pictures.update(f"{kind}s" for kind in refs.values())
    hashes = {}
    for name, samples in manifests.items():
        path = out / f"{name}.jsonl"
        write_manifest(path, samples)
        hashes[path.name] = sha256_of(path)
    by_split = Counter(splits)
    counts = {
        "patients": patients,
        **{f"{split}_patients": by_split[split] for split in ("train", "validation", "test")},
        **{kind: pictures[kind] for kind in ("images", "volumes", "videos")},
        **{name: len(samples) for name, samples in manifests.items()},
    }
    summary = {"version": VERSION, "seed": seed, "fractions": fractions, "counts": counts, "sha256": hashes}
    write_atomic(out / "phantoms.json", json.dumps(summary, indent=2) + "\n")
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of write_phantoms; 0 done, 1 stopped, 2 refused."""
    parser = argparse.ArgumentParser(
        prog="medvlm data phantoms",
        description="Write a data set of virtual patients.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="new or empty folder")
    parser.add_argument("--patients", type=int, default=2000, help="number of virtual patients")
    parser.add_argument("--seed", type=int, default=0, help="everything follows from it")
    parser.add_argument("--workers", type=int, default=1, help="processes; changes the time, never the bytes")
    parser.add_argument("--progress", action="store_true", help="show the bar even when output is not a terminal")
    arguments = parser.parse_args(argv)
    try:
        counts = write_phantoms(
            arguments.out,
            patients=arguments.patients,
            seed=arguments.seed,
            workers=arguments.workers,
            progress=arguments.progress,
        )
    except (ValueError, OSError) as error:
        parser.error(str(error))
    for name, count in counts.items():
        print(f"{name:24} {count}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
