"""The files that the loader bench reads: radiograph-like JPEG, and one CT-like volume as .nii.gz and as .npy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image

from medvlm.data_recipes.sample import VisualRef

QUALITY = 90
PICTURES: dict[str, tuple[int, int, int]] = {
    "1024 grey": (1024, 1024, 1),
    "1024 colour": (1024, 1024, 3),
    "2048 grey": (2048, 2048, 1),
    "2048 colour": (2048, 2048, 3),
    "3056 grey": (3056, 2544, 1),
}
"""(height, width, channels). 1024 is the size of ChestX-ray14, 3056 x 2544 the commonest of MIMIC-CXR-JPG."""
VOLUME = (128, 256, 256)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Files of one kind and size.

    Attributes:
        name: in the report.
        refs: for our readers, relative to ``root``.
        root: the folder.
    """

    name: str
    refs: tuple[VisualRef, ...]
    root: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(self.root / ref.path for ref in self.refs)


def _smooth(noise: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """``noise`` enlarged to ``size``, linearly along each axis."""
    for axis, new in enumerate(size):
        at = np.linspace(0, noise.shape[axis] - 1, new)
        low = np.minimum(at.astype(int), noise.shape[axis] - 2)
        part = (at - low).reshape([-1 if a == axis else 1 for a in range(noise.ndim)]).astype(np.float32)
        noise = np.take(noise, low, axis) * (1 - part) + np.take(noise, low + 1, axis) * part
    return noise.astype(np.float32)


def picture(height: int, width: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8: large shapes, structures of some pixels, and grain; about 1.3 bits a pixel as JPEG."""
    planes = []
    for _ in range(channels):
        coarse = _smooth(rng.random((17, 17), dtype=np.float32), (height, width)) * 150 + 40
        middle = _smooth(rng.standard_normal((height // 6, width // 6), dtype=np.float32), (height, width)) * 7
        grain = _smooth(rng.standard_normal((height // 2, width // 2), dtype=np.float32), (height, width)) * 4
        planes.append(coarse + middle + grain)
    return np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8).squeeze()


def volume(rng: np.random.Generator) -> np.ndarray:
    """(D, H, W) int16 as scanners store CT: HU + 1024, noise of 12 HU, zero outside the round field of view."""
    values = _smooth(rng.random((9, 17, 17), dtype=np.float32), VOLUME) * 1400
    values += rng.standard_normal(VOLUME, dtype=np.float32) * 12
    y, x = np.mgrid[: VOLUME[1], : VOLUME[2]] - (np.array(VOLUME[1:]) / 2).reshape(2, 1, 1)
    values[:, y**2 + x**2 > (VOLUME[1] * 0.46) ** 2] = 0
    return values.clip(0, 4095).astype(np.int16)


def write(folder: Path, copies: int = 2, seed: int = 0) -> tuple[list[Group], list[Group]]:
    """Write the files; groups of pictures and groups of volumes ("nii.gz", "npy")."""
    rng = np.random.default_rng(seed)
    pictures = []
    for name, (height, width, channels) in PICTURES.items():
        refs = []
        for number in range(copies):
            file = f"{name.replace(' ', '_')}_{number}.jpg"
            PIL.Image.fromarray(picture(height, width, channels, rng)).save(folder / file, quality=QUALITY)
            refs.append(VisualRef(kind="image", path=file))
        pictures.append(Group(name=name, refs=tuple(refs), root=folder))
    stored = volume(rng)
    # (right, anterior, superior) as NIfTI has it, so that our reader turns two axes over.
    image = nibabel.Nifti1Image(stored.transpose(2, 1, 0)[::-1, ::-1], np.diag([-0.8, -0.8, 2.5, 1.0]))
    image.header.set_slope_inter(1, -1024)
    nibabel.save(image, folder / "ct.nii.gz")
    np.save(folder / "ct.npy", stored - np.int16(1024))
    packed = VisualRef(kind="volume", path="ct.nii.gz", options={"unit": "HU", "modality": "CT"})
    array = VisualRef(kind="volume", path="ct.npy", options={"unit": "HU", "modality": "CT", "orientation": "SPL"})
    return pictures, [
        Group(name="nii.gz", refs=(packed,), root=folder),
        Group(name="npy", refs=(array,), root=folder),
    ]
