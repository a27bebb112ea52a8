"""NIfTI-1/2 and the other volume formats that nibabel reads: Analyze, MGH, MINC-1, PAR/REC."""

from __future__ import annotations

import gzip
import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers.content import head_of, header_of_pair, is_gzip
from medvlm.data_recipes.readers.inflate import GZIP_ERRORS, gunzip
from medvlm.data_recipes.readers.refusals import decoding, index_option, require_finite, unit_option
from medvlm.model.geometry import axis_permutation_and_flips
from medvlm.model.visual import CANONICAL_ORIENTATION, Volume

_NIBABEL_ERRORS = (ImageFileError, HeaderDataError, WrapStructError)
_MEND = "copy the file again from its source, or leave it out"
_MILLIMETRES = {"mm": 1.0, "unknown": 1.0, "meter": 1000.0, "micron": 0.001}
_GZIP_LIMIT = 1032
"""Deflate cannot shrink by more than this (zlib technical notes), so a larger claim of the header is false."""


def read(
    path: Path,
    *,
    time_index: Any = None,
    unit: Any = None,
    modality: str = "unknown",
) -> Volume:
    """Read one 3D volume, its intensities scaled by scl_slope and scl_inter, its axes in CANONICAL_ORIENTATION.

    Axes are permuted and flipped to the nearest patient axes of the affine that nibabel prefers (sform, else
    qform; https://nifti.nimh.nih.gov, "orientation information"); voxels are never interpolated. When both codes
    are 0 the file states no orientation: ``orientation`` is None and the axes are the stored ones, slowest first.
    Spacing is the header's pixdim in millimetres, after xyzt_units (unit code 0 is taken as mm, as all tools do).

    Args:
        path: .nii, .nii.gz, either half of a .hdr/.img pair, .mgh, .mgz, .mnc or .PAR; told by content, not name.
        time_index: which of the volumes of a 4D file, from 0. A file with one volume needs none.
        unit: NIfTI does not say whether numbers are HU; "arbitrary" unless the manifest does.
        modality: what the manifest knows.

    Raises:
        BadSample: damaged file, a header that lies about the size, several volumes without a choice, colour,
            complex or vector voxels, zero, negative or NaN spacing, NaN voxels, malformed option.
    """
    chosen = unit_option("arbitrary" if unit is None else unit, path)
    with ExitStack() as streams:
        image = _open(header_of_pair(path), streams)
        _chosen_volume(image, time_index, path)
        with decoding(path, "voxels for the whole grid of the header", _MEND, also=(*_NIBABEL_ERRORS, *GZIP_ERRORS)):
            stored = _stored(image, path)
        if stored is None:
            image = _one_volume(image, time_index, path)
            with decoding(path, "voxels for the whole grid of the header", _MEND, also=_NIBABEL_ERRORS):
                stored = Stored(np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged")))
    spacing = _spacing(image, path)
    orientation = _orientation(image, path)
    order, flips = (2, 1, 0), (False, False, False)
    if orientation is not None:
        order, flips = axis_permutation_and_flips(orientation)  # type: ignore[assignment]
    voxels = stored.turned(order, flips)
    require_finite(voxels, path, "voxels")
    return Volume(
        voxels=voxels,
        modality=modality,
        unit=chosen,
        spacing_mm=spacing and (spacing[order[0]], spacing[order[1]], spacing[order[2]]),
        orientation=orientation and CANONICAL_ORIENTATION,
    )


@dataclass(frozen=True)
class Stored:
    """Voxels as the file lays them, and how its numbers become real ones.

    Attributes:
        values: (I, J, K); any axis order in memory.
        slope, inter: real = slope * value + inter.
    """

    values: np.ndarray
    slope: float = 1.0
    inter: float = 0.0

    def turned(self, order: Sequence[int], flips: Sequence[bool]) -> np.ndarray:
        """Real numbers as float32, axes permuted and flipped: the volume is written once."""
        values = self.values.reshape(self.values.shape[:3] + (1,) * (3 - self.values.ndim)).transpose(order)
        values = values[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]
        if self.slope == 1 and self.inter == 0:
            return np.ascontiguousarray(values, dtype=np.float32)
        out = np.empty(values.shape, dtype=np.float32)
        for k, slice_ in enumerate(values):
            out[k] = slice_
            if self.slope != 1:
                out[k] *= np.float32(self.slope)
            out[k] += np.float32(self.inter)
        return out


def _stored(image: Any, path: Path) -> Stored | None:
    """The voxels of a single-file NIfTI of one volume, read at once; None where nibabel must read them: other formats,
    4D files, of which one volume is wanted, and numbers whose scaling rounds."""
    if type(image) not in (nibabel.Nifti1Image, nibabel.Nifti2Image) or math.prod(image.shape[3:]) != 1:
        return None
    proxy, kind = image.dataobj, image.get_data_dtype()
    slope, inter = float(proxy.slope), float(proxy.inter)
    plain = slope == 1 and inter == 0
    if not plain:
        # Products of whole numbers below 2^24 are exact in float32, so they are what nibabel gets in float64.
        largest = abs(slope) * float(np.iinfo(kind).max) + abs(inter) if kind.kind in "iu" else math.inf
        if not (slope.is_integer() and inter.is_integer() and largest < 1 << 24):
            return None
    begin, count = int(proxy.offset), math.prod(image.shape)
    if is_gzip(path):
        raw = gunzip(path, begin + count * kind.itemsize)
        values = np.frombuffer(raw, dtype=kind, count=count, offset=begin)
    else:
        values = np.memmap(path, dtype=kind, mode="r", offset=begin, shape=(count,))
    return Stored(values.reshape(image.shape[:3], order="F"), slope, inter)


def _open(path: Path, streams: ExitStack) -> Any:
    """The nibabel image of the file, chosen by content so that a wrong extension does no harm; voxels unread."""
    head = head_of(path)
    single: Any = None
    if head[344:348] == b"n+1\0":
        single = nibabel.Nifti1Image
    elif head[4:8] == b"n+2\0":
        single = nibabel.Nifti2Image
    elif head[:4] == b"\0\0\0\x01":
        single = nibabel.MGHImage
    # nibabel logs every header flaw it mends; those that matter are checked here and raised.
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
    with decoding(path, "a volume file of a kind that nibabel reads", _MEND, also=_NIBABEL_ERRORS):
        if single is None:
            return nibabel.load(path)  # type: ignore[attr-defined]
        stream = streams.enter_context(gzip.open(path) if is_gzip(path) else path.open("rb"))  # noqa: SIM115
        image = single.from_stream(stream)
        if issubclass(single, nibabel.Nifti1Pair):
            _require_stated_spacing(type(image.header)(head[: image.header.sizeof_hdr], check=False), path)
    claimed = math.prod(image.shape) * image.get_data_dtype().itemsize
    present = path.stat().st_size * (_GZIP_LIMIT if is_gzip(path) else 1)
    if claimed > present:
        raise BadSample(
            f"the header claims {image.shape} voxels, {claimed} bytes, but the file can hold at most {present}",
            where=str(path),
            mend=_MEND,
        )
    return image


def _require_stated_spacing(raw: Any, path: Path) -> None:
    """Refuse a pixdim of zero: nibabel silently makes it 1 when it loads an image (_chk_pixdims)."""
    axes = min(int(raw["dim"][0]), 3)
    pixdim = [float(z) for z in raw["pixdim"][1 : axes + 1]]
    if not all(math.isfinite(z) and z > 0 for z in pixdim):
        raise BadSample(
            f"voxel spacing {pixdim} in the header; positive millimetres are expected",
            where=str(path),
            mend="write the true pixdim into the header (nibabel: image.header.set_zooms)",
        )


def header_size(path: Path, *, time_index: Any = None, **_: Any) -> tuple[int, int, int]:
    """(D, H, W) of what ``read`` would return, from the header alone.

    Raises:
        BadSample: as ``read``, where the header already shows it.
    """
    with ExitStack() as streams:
        image = _open(header_of_pair(path), streams)
        _chosen_volume(image, time_index, path)
        shape = (*image.shape[:3], 1)[:3]
        _spacing(image, path)
        orientation = _orientation(image, path)
    order = (2, 1, 0) if orientation is None else axis_permutation_and_flips(orientation)[0]
    return shape[order[0]], shape[order[1]], shape[order[2]]


def _one_volume(image: Any, time_index: Any, path: Path) -> Any:
    """The image cut down to one volume, its real numbers still unread."""
    count, chosen = _chosen_volume(image, time_index, path)
    with decoding(path, f"{count} whole volumes", _MEND, also=_NIBABEL_ERRORS):
        if count > 1:
            image = image.slicer[:, :, :, chosen : chosen + 1]
        return nibabel.funcs.squeeze_image(image) if len(image.shape) > 3 else image


def _chosen_volume(image: Any, time_index: Any, path: Path) -> tuple[int, int]:
    """How many volumes there are and which one is meant; refuses what is no volume of real numbers."""
    shape, kind = image.shape, image.get_data_dtype()
    if kind.kind not in "iuf":
        raise BadSample(
            f"voxels of type {kind}; one real number per voxel is expected",
            where=str(path),
            mend="write one channel (for example the red one, or the magnitude) as a 3D file",
        )
    if 0 in shape or len(shape) < 2:
        raise BadSample(f"a grid of {shape}; three axes are expected", where=str(path), mend=_MEND)
    if math.prod(shape[4:]) > 1:
        raise BadSample(
            f"{len(shape)}D voxels {shape}, as vectors or several series have; one 3D volume is expected",
            where=str(path),
            mend="split the file and write the wanted component as a 3D file",
        )
    count = shape[3] if len(shape) > 3 else 1
    if time_index is None and count > 1:
        raise BadSample(
            f"a 4D file of {count} volumes {shape[:3]}; one is expected",
            where=str(path),
            mend=f"choose one with options.time_index, 0 to {count - 1}",
        )
    return count, 0 if time_index is None else index_option("time_index", time_index, count, path)


def _spacing(image: Any, path: Path) -> tuple[float, float, float] | None:
    """Millimetres along the stored axes (i, j, k); None for a 2D file, which has no third spacing."""
    header = image.header
    zooms = [float(z) for z in header.get_zooms()[:3]]
    if len(zooms) < 3:
        return None
    scale = 1.0
    if hasattr(header, "get_xyzt_units"):
        with decoding(path, "a known code in xyzt_units", "set it to 2 (mm) in the header"):
            scale = _MILLIMETRES[header.get_xyzt_units()[0]]
    if not all(math.isfinite(z) and z > 0 for z in zooms):
        raise BadSample(
            f"voxel spacing {zooms}; positive millimetres are expected",
            where=str(path),
            mend="write the true spacing into the header",
        )
    return (zooms[0] * scale, zooms[1] * scale, zooms[2] * scale)


def _orientation(image: Any, path: Path) -> str | None:
    """Where axes i, j, k run to; None when the file does not say."""
    header = image.header
    if isinstance(image, nibabel.AnalyzeImage) and not isinstance(image, nibabel.Nifti1Pair):
        return None
    if isinstance(image, nibabel.Nifti1Pair) and not (int(header["qform_code"]) or int(header["sform_code"])):
        return None
    finite = bool(np.isfinite(image.affine).all())
    codes: tuple[Any, ...] = nibabel.aff2axcodes(image.affine) if finite else (None,)
    if None in codes:
        raise BadSample(
            "the affine maps an axis to nothing; an invertible affine is expected",
            where=str(path),
            mend="set a valid sform or qform, or set both codes to 0 when the orientation is unknown",
        )
    return "".join(codes)
