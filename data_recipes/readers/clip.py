"""Video clips, through FFmpeg (PyAV)."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import av
import numpy as np
from av.error import FFmpegError

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers.refusals import decoding, spacing_option
from medvlm.model.visual import Video

MAX_FRAMES = 32
"""Frames kept when the manifest does not say: bounds memory whatever the length of the clip."""

GREY_TOLERANCE = 2
"""Channel difference, of 255, that codecs add to grey pictures stored as colour."""

_MEND = "copy the clip again from its source, or leave it out; ffprobe tells what is wrong with it"


def read(
    path: Path,
    *,
    start_s: Any = None,
    end_s: Any = None,
    max_frames: Any = None,
    modality: str = "unknown",
    spacing_mm: Any = None,
) -> Video:
    """Read frames of the first video stream as (T, C, H, W) in [0, 1], upright by the clip's display rotation.

    Frames are chosen by :func:`choose_frames`. ``times_s`` are presentation times from the first frame of the
    stream. A clip whose channels differ by at most GREY_TOLERANCE everywhere has one channel, their mean.

    Args:
        path: MP4, MOV, AVI, MKV, WebM, MPEG, ... (or an animated GIF); told by content, not name.
        start_s: first second shown, from the first frame; the beginning when None.
        end_s: last second shown; the end when None.
        max_frames: at most so many frames, MAX_FRAMES when None.
        modality: what the manifest knows.
        spacing_mm: (row, column) millimetres, when the manifest knows.

    Raises:
        BadSample: empty, damaged or cut-off clip, no video stream, no frame in the span, malformed option.
    """
    spacing = spacing_option(spacing_mm, 2, path)
    with path.open("rb") as file:
        frames, times = decode(file, path, start_s=start_s, end_s=end_s, max_frames=max_frames)
    return Video(frames=to_display(frames), times_s=times, modality=modality, spacing_mm=spacing)  # type: ignore[arg-type]


def decode(file: IO[bytes], path: Path, *, start_s: Any, end_s: Any, max_frames: Any) -> tuple[np.ndarray, np.ndarray]:
    """Chosen frames (T, H, W, 3) uint8 and their times (T,) in seconds, of an encoded stream.

    Packets are listed first, without decoding, so that only the chosen frames are ever held in memory.

    Raises:
        BadSample: see :func:`read`.
    """
    with decoding(path, "a video clip", _MEND, also=(FFmpegError,)):
        stamps, step = _list_frames(file, path)
    zero = stamps[0]
    chosen = choose_frames(
        np.array([float((stamp - zero) * step) for stamp in stamps]),
        path,
        start_s=start_s,
        end_s=end_s,
        max_frames=max_frames,
    )
    wanted = {stamps[index] for index in chosen}
    file.seek(0)
    with decoding(path, "a whole video clip", _MEND, also=(FFmpegError,)):
        found = _decode_at(file, wanted)
    if len(found) < len(wanted):
        first = float((min(wanted - set(found)) - zero) * step)
        raise BadSample(
            f"{len(wanted) - len(found)} of {len(wanted)} chosen frames cannot be decoded, the first at {first:.3f} s",
            where=str(path),
            mend=_MEND,
        )
    sizes = {frame.shape for frame in found.values()}
    if len(sizes) > 1:
        raise BadSample(f"frames of several sizes {sorted(sizes)}", where=str(path), mend="re-encode the clip")
    order = sorted(found)
    return np.stack([found[stamp] for stamp in order]), np.array([float((stamp - zero) * step) for stamp in order])


def _list_frames(file: IO[bytes], path: Path) -> tuple[list[int], Any]:
    """Sorted presentation stamps of the first video stream, and the seconds of one stamp unit."""
    with av.open(file, mode="r") as container:
        if not container.streams.video:
            raise BadSample("no video stream", where=str(path), mend="give a clip with pictures")
        stream = container.streams.video[0]
        packets = [p for p in container.demux(stream) if p.size]
        stamps = {p.pts for p in packets if p.pts is not None and not p.is_discard}
        step = stream.time_base
        if not stamps:
            raise BadSample("no frame with a presentation time", where=str(path), mend=_MEND)
        if stream.frames and len(packets) < stream.frames:
            raise BadSample(
                f"the clip is cut off: {len(packets)} of {stream.frames} frames are there",
                where=str(path),
                mend=_MEND,
            )
    return sorted(stamps), step


def _decode_at(file: IO[bytes], wanted: set[int]) -> dict[int, np.ndarray]:
    """Decode in order and keep the frames whose stamp is wanted; stop after the last."""
    found: dict[int, np.ndarray] = {}
    with av.open(file, mode="r") as container:
        for frame in container.decode(container.streams.video[0]):
            if frame.pts in wanted:
                turns = round(frame.rotation / 90)
                found[frame.pts] = np.rot90(frame.to_ndarray(format="rgb24"), k=turns)
                if len(found) == len(wanted):
                    break
    return found


def choose_frames(times: np.ndarray, path: Path, *, start_s: Any, end_s: Any, max_frames: Any) -> list[int]:
    """Which frames of a clip are shown: uniform in frame number over the span, first and last kept.

    With n frames between ``start_s`` and ``end_s`` (both included) and a cap of m < n, the frames shown are
    round(i * (n - 1) / (m - 1)) for i = 0 .. m - 1; for m = 1 the middle one.

    Args:
        times: (N,) seconds from the first frame, increasing.
        path: named in complaints.
        start_s, end_s, max_frames: as in :func:`read`.

    Raises:
        BadSample: malformed option, or no frame in the span.
    """
    limit = MAX_FRAMES if max_frames is None else max_frames
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise BadSample(f"options.max_frames is {limit!r}", where=str(path), mend="use a whole number of at least 1")
    start, end = 0.0 if start_s is None else start_s, float(times[-1]) if end_s is None else end_s
    if not all(isinstance(s, (int, float)) and not isinstance(s, bool) for s in (start, end)) or start > end:
        raise BadSample(
            f"options.start_s {start_s!r} and end_s {end_s!r} are no span of time in a clip of {times[-1]:.3f} s",
            where=str(path),
            mend="use seconds from the first frame, start_s <= end_s",
        )
    # Half a microsecond: a time written with rounded decimals still finds its frame.
    inside = np.flatnonzero((times >= start - 5e-7) & (times <= end + 5e-7))
    if not len(inside):
        raise BadSample(
            f"no frame from {start} s to {end} s; the clip runs to {times[-1]:.3f} s",
            where=str(path),
            mend="choose options.start_s and end_s within the clip",
        )
    if len(inside) <= limit:
        return [int(index) for index in inside]
    if limit == 1:
        return [int(inside[len(inside) // 2])]
    return [int(inside[round(i * (len(inside) - 1) / (limit - 1))]) for i in range(limit)]


def to_display(frames: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) uint8 to (T, C, H, W) float32 in [0, 1]; C is 1 when the clip is grey."""
    grey = True
    for frame in frames:
        if (frame.max(axis=-1) - frame.min(axis=-1)).max() > GREY_TOLERANCE:
            grey = False
            break
    if grey:
        return frames.mean(axis=-1, dtype=np.float32)[:, None] / np.float32(255)
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)
