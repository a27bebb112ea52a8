"""DICOM files and series: images, volumes and cine clips."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import MPEGTransferSyntaxes

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers import clip
from medvlm.data_recipes.readers.content import format_of
from medvlm.data_recipes.readers.dicom_header import (
    DICOM_ERRORS,
    Plane,
    describe,
    frame_count,
    frame_groups,
    image_orientation,
    image_spacing,
    numbers,
    open_dataset,
    plane_of,
    require_pixels,
    unit_of,
    voi_window,
)
from medvlm.data_recipes.readers.dicom_pixels import decode_frame, picture_of, rescale, turned_over
from medvlm.data_recipes.readers.dicom_stack import order_along_normal, require_alike, resample_even
from medvlm.data_recipes.readers.refusals import decoding, index_option
from medvlm.model.geometry import orientation_of_directions, reorient
from medvlm.model.visual import Image, Kind, Unit, Video, Volume


def kind_of_file(path: Path) -> Kind | None:
    """From the header: None without pixels; several frames are a volume when they have positions in the patient, a
    video when they have times, else an image of which a frame must be chosen.

    Raises:
        BadSample: the file is damaged.
    """
    dataset = open_dataset(path, pixels=False)
    if not dataset.get("Rows") or not dataset.get("Columns"):
        return None
    if frame_count(dataset) == 1:
        return "image"
    if _has_positions(dataset):
        return "volume"
    return "image" if _frame_seconds(dataset, None, path) is None else "video"


def kind_of_folder(folder: Path) -> Kind | None:
    """ "volume" when the folder holds at least two DICOM slices with positions, or one multi-frame volume."""
    placed = 0
    for path in sorted(folder.iterdir()):
        if path.is_file() and format_of(path) == "dicom":
            dataset = open_dataset(path, pixels=False)
            if dataset.get("Rows") and _has_positions(dataset):
                placed += frame_count(dataset)
            if placed >= 2:
                return "volume"
    return None


def _has_positions(dataset: Dataset) -> bool:
    groups = frame_groups(dataset, frame_count(dataset) - 1)
    placed = "ImagePositionPatient" in groups and "ImageOrientationPatient" in groups
    return placed and (groups is not dataset or frame_count(dataset) == 1)


def read_file(path: Path, frame: Any = None) -> Image | Volume:
    """Read one file: an Image, or the Volume that an enhanced multi-frame object holds.

    See medvlm.data_recipes.readers.dicom_pixels.picture_of for values and windows of images; they are not flipped:
    ``orientation`` tells how they lie.

    Args:
        path: the file.
        frame: which frame of a multi-frame file, from 0, to read as an Image; None reads the only frame, or the
            volume of all frames when they have positions.

    Raises:
        BadSample: no pixels, damaged pixels, several frames without positions and without a choice, and what
            :func:`read_series` raises.
    """
    dataset = open_dataset(path, pixels=True)
    require_pixels(dataset, path)
    count = frame_count(dataset)
    if frame is None and count > 1:
        if _has_positions(dataset):
            return _volume([plane_of(dataset, n, path) for n in range(count)], path, dataset=dataset)
        raise BadSample(
            f"{count} frames without positions in the patient; one image or a volume is expected",
            where=str(path),
            mend=f"choose a frame with options.frame, 0 to {count - 1}, or read the file as a video",
        )
    chosen = 0 if frame is None else index_option("frame", frame, count, path)
    groups = frame_groups(dataset, chosen)
    pixels, unit, window = picture_of(dataset, groups, chosen, path)
    return Image(
        pixels=np.ascontiguousarray(pixels),
        modality=describe(dataset),
        unit=unit,
        spacing_mm=image_spacing(dataset, groups, path),
        orientation=image_orientation(groups, path),
        window=window,
    )


def read_series(source: Path | Sequence[Path], series_uid: str | None = None, *, resample_gaps: bool = False) -> Volume:
    """Read the slices of one series as a Volume in CANONICAL_ORIENTATION.

    Slices are sorted by their position along the normal (ImagePositionPatient . (row x column direction)), never
    by name or InstanceNumber. Axes are permuted and flipped to the nearest patient axes; an oblique volume keeps
    its oblique grid. With gantry tilt the spacing is the distance along the slice normal; the shear of the
    stack is NOT corrected. ``window`` is that of the middle slice.

    Args:
        source: a folder (its files, not its sub-folders; files that are not DICOM and DICOM objects that are no
            image are passed over), or the files.
        series_uid: SeriesInstanceUID to choose where there are several.
        resample_gaps: allow uneven slice distances and interpolate linearly to the smallest one.

    Raises:
        BadSample: several series without a choice, a gap, duplicate positions, mixed sizes, spacings or
            orientations, absent or zero spacing, no position, damaged or colour slices, fewer than two slices.
    """
    where, files = _files_of(source)
    headers: list[tuple[Path, str, Dataset]] = []
    for path in files:
        dataset = open_dataset(path, pixels=False)
        if not dataset.get("Rows"):
            named = getattr(dataset.get("SOPClassUID"), "name", "")
            if "Image Storage" in named:
                require_pixels(dataset, path)
            continue
        headers.append((path, str(dataset.get("SeriesInstanceUID", "")), dataset))
    series = Counter(uid for _, uid, _ in headers)
    if not series:
        raise BadSample("no DICOM image", where=str(where), mend="give the folder that holds the slices themselves")
    if (series_uid is None and len(series) > 1) or (series_uid is not None and series_uid not in series):
        listed = ", ".join(f"{uid or '(none)'} ({n} files)" for uid, n in series.most_common(5))
        asked = "one is expected" if series_uid is None else f"{series_uid} is not among them"
        raise BadSample(
            f"{len(series)} series in one folder: {listed}; {asked}",
            where=str(where),
            mend="choose one with options.series_uid",
        )
    planes = [
        plane_of(dataset, frame, path)
        for path, uid, dataset in headers
        if series_uid is None or uid == series_uid
        for frame in range(frame_count(dataset))
    ]
    return _volume(planes, where, resample_gaps=resample_gaps)


def _files_of(source: Path | Sequence[Path]) -> tuple[Path, list[Path]]:
    """Where complaints point, and the DICOM files; a .dcm that is no DICOM is refused, not passed over."""
    if isinstance(source, Path):
        listed, where = sorted(p for p in source.iterdir() if p.is_file()), source
    else:
        listed, where = list(source), Path(source[0]).parent if source else Path()
    files = []
    for path in listed:
        if format_of(path) == "dicom":
            files.append(path)
        elif path.suffix.lower() in (".dcm", ".ima", ".dicom") or not isinstance(source, Path):
            size = path.stat().st_size
            raise BadSample(
                f"not a DICOM file ({size} bytes), although it stands among slices",
                where=str(path),
                mend="copy it again from the archive, or remove it from the folder",
            )
    return where, files


def _volume(planes: list[Plane], where: Path, *, resample_gaps: bool = False, dataset: Dataset | None = None) -> Volume:
    """Decode and stack; ``dataset`` is the open file when all slices are its frames."""
    require_alike(planes, where)
    order, offsets = order_along_normal(planes, where, allow_gaps=resample_gaps)
    voxels = np.empty((len(order), *planes[0].size), dtype=np.float32)
    units: set[Unit] = set()
    window, modality, opened = None, "unknown", None if dataset is None else where
    for row, index in enumerate(order):
        plane = planes[index]
        if opened != plane.path:
            dataset, opened = open_dataset(plane.path, pixels=True), plane.path
        assert dataset is not None
        groups = frame_groups(dataset, plane.frame)
        stored = decode_frame(dataset, plane.frame, plane.path)
        if stored.ndim != 2 or dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
            raise BadSample(
                "a colour slice; a volume holds one number per voxel",
                where=str(plane.path),
                mend="leave the series out, or read its slices as images",
            )
        voxels[row] = rescale(dataset, groups, stored, plane.path)
        units.add(unit_of(dataset, groups))
        if row == len(order) // 2:
            window, modality = voi_window(groups, plane.path), describe(dataset)
    if len(units) > 1:
        raise BadSample(
            f"slices in different units ({', '.join(sorted(units))}): some lack their rescale slope and intercept",
            where=str(where),
            mend="repair RescaleSlope and RescaleIntercept of all slices",
        )
    if resample_gaps:
        voxels, step = resample_even(voxels, offsets, where)
    else:
        step = float(offsets[-1] - offsets[0]) / (len(offsets) - 1)
    if dataset is not None and dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        voxels, window = turned_over(voxels, window)
    first = planes[0]
    normal = np.cross(first.right, first.down)
    volume = Volume(
        voxels=voxels,
        modality=modality,
        unit=units.pop(),
        spacing_mm=(step, *first.spacing),
        orientation=orientation_of_directions(np.stack((normal, first.down, first.right), axis=1)),
        window=window,
    )
    return reorient(volume)


def read_cine(
    path: Path, *, start_s: Any = None, end_s: Any = None, max_frames: Any = None, frame_time_s: Any = None
) -> Video:
    """Read a multi-frame file (ultrasound, angiography, endoscopy) as a Video.

    Frames are chosen by medvlm.data_recipes.readers.clip.choose_frames and shown as pictures are; a grey clip that
    asks for no window is scaled by the range of the chosen frames. Times come from FrameTimeVector, FrameTime,
    CineRate or RecommendedDisplayFrameRate, in that order; MPEG and HEVC streams bring their own.

    Args:
        path: the file.
        start_s, end_s, max_frames: as in medvlm.data_recipes.readers.clip.read.
        frame_time_s: seconds between frames, for a file that does not say.

    Raises:
        BadSample: no pixels, damaged, no time between frames known, malformed option.
    """
    dataset = open_dataset(path, pixels=True)
    require_pixels(dataset, path)
    spacing = image_spacing(dataset, frame_groups(dataset, 0), path)
    span = {"start_s": start_s, "end_s": end_s, "max_frames": max_frames}
    if dataset.file_meta.TransferSyntaxUID in MPEGTransferSyntaxes:
        with decoding(path, "an encapsulated video", "copy the file again", also=DICOM_ERRORS):
            stream = io.BytesIO(next(generate_frames(dataset.PixelData, number_of_frames=1)))
        encoded, times = clip.decode(stream, path, **span)
        frames = clip.to_display(encoded)
    else:
        seconds = _frame_seconds(dataset, frame_time_s, path)
        if seconds is None:
            raise BadSample(
                f"{frame_count(dataset)} frames without FrameTime, FrameTimeVector or CineRate; a video needs times",
                where=str(path),
                mend="state options.frame_time_s, or choose one frame as an image with options.frame",
            )
        chosen = clip.choose_frames(seconds, path, **span)
        times, frames = seconds[chosen], _cine_frames(dataset, chosen, path)
    return Video(frames=frames, times_s=times, modality=describe(dataset), spacing_mm=spacing)


def _cine_frames(dataset: Dataset, chosen: list[int], path: Path) -> np.ndarray:
    """(T, C, H, W) in [0, 1]."""
    shown = [picture_of(dataset, frame_groups(dataset, n), n, path) for n in chosen]
    channels = max(pixels.shape[0] for pixels, _, _ in shown)
    frames = np.stack([np.broadcast_to(p, (channels, *p.shape[1:])) for p, _, _ in shown])
    if any(unit != "display" for _, unit, _ in shown):
        low, high = voi_window(frame_groups(dataset, 0), path) or (float(frames.min()), float(frames.max()))
        frames = np.clip((frames - low) / max(high - low, 1e-6), 0, 1)
    return frames.astype(np.float32)


def _frame_seconds(dataset: Dataset, stated: Any, path: Path) -> np.ndarray | None:
    """(N,) seconds of each frame from the first; None when the file does not say."""
    count = frame_count(dataset)
    if stated is not None:
        if not isinstance(stated, (int, float)) or isinstance(stated, bool) or not 0 < stated < 3600:
            raise BadSample(f"options.frame_time_s is {stated!r}", where=str(path), mend="use positive seconds")
        return np.arange(count) * float(stated)
    vector = numbers(dataset, "FrameTimeVector", None, path)
    if vector is not None and len(vector) == count and min(vector[1:], default=1.0) > 0:
        return np.cumsum((0.0, *vector[1:])) / 1000
    step = numbers(dataset, "FrameTime", 1, path)
    if step is not None and step[0] > 0:
        return np.arange(count) * step[0] / 1000
    for keyword in ("CineRate", "RecommendedDisplayFrameRate"):
        rate = numbers(dataset, keyword, 1, path)
        if rate is not None and rate[0] > 0:
            return np.arange(count) / rate[0]
    return None
