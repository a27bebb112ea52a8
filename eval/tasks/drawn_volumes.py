"""Small made-up volumes for the examples of tasks: noise with a bright block, drawn from their name alone."""

from __future__ import annotations

import csv
import gzip
import hashlib
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

SHAPE = (6, 10, 12)
"""Slices, rows, columns."""


def drawn(name: str) -> np.ndarray:
    """Values from 0 to 1 of SHAPE, others for every name."""
    generator = np.random.default_rng(int(hashlib.sha256(name.encode()).hexdigest()[:8], 16))
    values = generator.integers(0, 160, SHAPE).astype(np.float32)
    first = [int(generator.integers(0, length - 3)) for length in SHAPE]
    values[tuple(slice(start, start + 3) for start in first)] = 255
    return values / 255


def draw_npy(path: Path) -> None:
    """Write the volume named by ``path`` as M3D prepares them: (1, D, H, W), values from 0 to 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, drawn("/".join(path.parts[-3:]))[None])


def draw_ct(path: Path) -> None:
    """Write the CT volume named by ``path``: Hounsfield units from -1000 to 400, voxels of 2 x 2 x 5 mm."""
    write_nifti(path, np.round(drawn(path.name) * 1400 - 1000).astype(np.int16))


def write_nifti(path: Path, voxels: np.ndarray) -> None:
    """A gzipped NIfTI file of (D, H, W) ``voxels``, the same bytes each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(voxels.transpose(2, 1, 0), np.diag([2.0, 2.0, 5.0, 1.0]))  # type: ignore[attr-defined]
    path.write_bytes(gzip.compress(image.to_bytes(), mtime=0))


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
