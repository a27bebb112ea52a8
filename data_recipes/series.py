"""Loose DICOM files of a folder -> series that are volumes, and single files."""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers.dicom_header import DICOM_ERRORS
from medvlm.data_recipes.readers.refusals import decoding

SMALLEST_SERIES = 4
"""Fewer slices than this (localisers, single shots) are pictures of their own, not a volume."""

DIRECTORY_STORAGE = "1.2.840.10008.1.3.10"
_TAGS = [
    "PatientID", "SeriesInstanceUID", "SOPClassUID", "Rows", "Columns", "ImagePositionPatient",
    "ImageOrientationPatient", "NumberOfFrames",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Header:
    """What grouping needs of one DICOM file; ``patient`` is a hash, never the id that the file states."""

    path: Path
    patient: str | None
    series_uid: str
    size: tuple[int, int]
    frames: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    is_directory: bool


@dataclass(frozen=True, kw_only=True)
class Series:
    """Slices of one series, size and orientation in one folder."""

    folder: Path
    series_uid: str
    headers: tuple[Header, ...]

    @property
    def patient(self) -> str | None:
        return self.headers[0].patient


def hashed(identity: str) -> str:
    """A short one-way name for a patient: the first 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _numbers(value: Any, length: int) -> tuple[float, ...] | None:
    if value is None or len(value) != length:
        return None
    return tuple(float(number) for number in value)


def read_header(path: Path) -> Header:
    """Read the header, without pixels.

    Raises:
        BadSample: not a readable DICOM header.
    """
    mend = "export the file again"
    with warnings.catch_warnings(), decoding(path, "a DICOM header", mend, also=DICOM_ERRORS, quote=False):
        warnings.simplefilter("ignore")  # pydicom warns, with values, about every odd tag of foreign files
        data = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=_TAGS)
        meta = getattr(data, "file_meta", {})
        storage = str(meta.get("MediaStorageSOPClassUID", "")) or str(data.get("SOPClassUID", ""))
        patient = str(data.get("PatientID") or "").strip()
        return Header(
            path=path,
            patient=f"dicom/{hashed(patient)}" if patient else None,
            series_uid=str(data.get("SeriesInstanceUID") or ""),
            size=(int(data.get("Rows") or 0), int(data.get("Columns") or 0)),
            frames=int(data.get("NumberOfFrames") or 1),
            position=_numbers(data.get("ImagePositionPatient"), 3),
            orientation=_numbers(data.get("ImageOrientationPatient"), 6),
            is_directory=storage == DIRECTORY_STORAGE,
        )


def _is_volume(headers: list[Header]) -> bool:
    """Slices at enough different places along the normal of the common orientation.

    Several time points at the same places still are a volume series: its reader says what to choose.
    """
    axes = np.array(headers[0].orientation).reshape(2, 3)
    normal = np.cross(axes[0], axes[1])
    if not np.isfinite(normal).all() or np.linalg.norm(normal) < 0.5:
        return False
    places = {round(float(normal @ np.array(header.position)), 2) for header in headers}
    return len(places) >= SMALLEST_SERIES


def _alike(headers: list[Header]) -> list[list[Header]]:
    """Cut into lists of one orientation: cosines agree within 0.01, as the reader of series asks."""
    found: list[list[Header]] = []
    for header in headers:
        facing = np.array(header.orientation)
        match = next((one for one in found if np.abs(np.array(one[0].orientation) - facing).max() < 0.01), None)
        if match is None:
            found.append([header])
        else:
            match.append(header)
    return found


def group(files: list[Path]) -> tuple[list[Series], list[tuple[Path, Header | None]], int, list[BadSample]]:
    """Sort DICOM files into series and single files.

    A series is SMALLEST_SERIES or more single-frame files in one folder that share uid, size and orientation
    and lie at different places. What is less (localisers, re-encodings of one slice) comes back as single files.

    Returns:
        series; single files with their header; number of DICOMDIR files (an index, no visual); files whose
        header cannot be read.
    """
    groups: dict[tuple[Any, ...], list[Header]] = defaultdict(list)
    singles: list[tuple[Path, Header | None]] = []
    refused: list[BadSample] = []
    directories = 0
    for path in files:
        try:
            header = read_header(path)
        except BadSample as bad:
            refused.append(bad)
            continue
        if header.is_directory:
            directories += 1
        elif not header.series_uid or header.frames > 1 or None in (header.position, header.orientation):
            singles.append((path, header))
        else:
            groups[(path.parent, header.series_uid, header.size)].append(header)
    series: list[Series] = []
    for (folder, uid, _), together in groups.items():
        for headers in _alike(together):
            if _is_volume(headers):
                series.append(Series(folder=folder, series_uid=uid, headers=tuple(headers)))
            else:
                singles += [(header.path, header) for header in headers]
    return series, singles, directories, refused
