"""Volumes and clips for models that take pictures only: slices and frames under a stated policy, with words for each.

The words say what a reader at a workstation sees: which slice of how many, at how many millimetres, through which
window, and which side of the picture is which side of the patient. A policy is a part of a run (run.json, "answering"):
answers under one are never mixed with answers under another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np

from medvlm.data_recipes.sample import Role, Turn
from medvlm.model.geometry import middles, reorient, resize_volume
from medvlm.model.intensity import HU_WINDOWS, IntensityRule, Window, apply_window, picture_channels, volume_windows
from medvlm.model.visual import Image, Video, Visual, Volume

VERSION = 1
"""Rises whenever the same policy begins to show other pixels or other words."""

Plane = Literal["axial", "coronal", "sagittal"]
Colours = Literal["grey", "rgb"]


@dataclass(frozen=True, kw_only=True)
class _View:
    """How a plane is shown: the axes of the turned volume, and the words for them."""

    orientation: str
    run: str
    lower: str
    sides: str


_PATIENT = "the patient's right is on the left of the picture and the patient's left is on the right of the picture"
_VIEWS: Mapping[Plane, _View] = {
    "axial": _View(
        orientation="SPL",
        run="from the lowest (inferior) to the highest (superior)",
        lower="lower",
        sides=f"{_PATIENT}; the front of the patient (anterior) is at the top",
    ),
    "coronal": _View(
        orientation="PIL",
        run="from the front (anterior) to the back (posterior)",
        lower="front",
        sides=f"{_PATIENT}; the head (superior) is at the top",
    ),
    "sagittal": _View(
        orientation="LIP",
        run="from the patient's right to the patient's left",
        lower="right",
        sides="the front of the patient (anterior) is on the left of the picture; the head (superior) is at the top",
    ),
}
"""Radiological convention, as in CANONICAL_ORIENTATION."""


@dataclass(frozen=True, kw_only=True)
class SlicePolicy:
    """What is shown of a volume and of a clip.

    Attributes:
        slices: most slices of a volume: the middle ones of as many equal parts of its length in millimetres, single
            slices and no averages; a volume of fewer is shown whole.
        plane: of the patient, whatever the order of the file; a volume of unknown orientation is shown as stored, and
            the words say so.
        windows: of a CT in HU: names of intensity.HU_WINDOWS or (low, high). Other volumes have one window: the file's,
            else percentiles of the whole volume.
        colours: "grey": one picture for each window; "rgb": the three windows as red, green and blue of one picture.
        frames: most frames of a clip, at equal distances in time.
        longest: pixels of the longer side of a slice or frame; a larger one is averaged down, a smaller one stays.
            0: as they are. Single pictures are not touched.

    Raises:
        ValueError: a count below 1, an unknown name, or "rgb" with another number of windows than three.
    """

    slices: int = 12
    plane: Plane = "axial"
    windows: tuple[str | Window, ...] = ("soft_tissue", "lung")
    colours: Colours = "grey"
    frames: int = 8
    longest: int = 512

    def __post_init__(self) -> None:
        for name, least in (("slices", 1), ("frames", 1), ("longest", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name} is {value!r}; use a whole number of at least {least}")
        for name, allowed in (("plane", get_args(Plane)), ("colours", get_args(Colours))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; use one of {', '.join(allowed)}")
        for window in self.windows:
            if isinstance(window, str) and window not in HU_WINDOWS:
                raise ValueError(
                    f"there is no window {window!r}; use one of {', '.join(HU_WINDOWS)}, or LOW:HIGH in HU"
                )
            if not isinstance(window, str) and not window[0] < window[1]:
                raise ValueError(f"the window {window} must have low < high in HU")
        if not self.windows or (self.colours == "rgb" and len(self.windows) != 3):
            raise ValueError(
                f"{len(self.windows)} windows for colours {self.colours!r}; rgb needs three, grey one or more"
            )

    @classmethod
    def from_text(cls, text: str) -> SlicePolicy:
        """A policy as on a command line: "slices=12,plane=axial,windows=lung+soft_tissue,colours=grey,frames=8".

        Raises:
            ValueError: an unknown name or value.
        """
        given: dict[str, Any] = {}
        known = [field.name for field in fields(cls)]
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            name, equals, value = part.partition("=")
            if name not in known or not equals:
                raise ValueError(f"{part!r} is no setting of slices; write NAME=VALUE with one of {', '.join(known)}")
            try:
                given[name] = _value_of(name, value)
            except ValueError as error:
                raise ValueError(f"{name}={value!r} cannot be read; write for example {_EXAMPLES[name]}") from error
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """For run.json, with the version of what is made of it."""
        plain = asdict(self)
        plain["windows"] = [w if isinstance(w, str) else list(w) for w in self.windows]
        return {"version": VERSION, **plain}

    def window(self, place: int) -> tuple[str, Window]:
        """(words, (low, high) in HU) of a window."""
        window = self.windows[place]
        low, high = HU_WINDOWS[window] if isinstance(window, str) else window
        name = window.replace("_", " ") + " " if isinstance(window, str) else ""
        return f"{name}window ({low:g} to {high:g} HU)", (low, high)


_EXAMPLES = {
    "slices": "slices=12", "plane": "plane=axial", "windows": "windows=lung+soft_tissue or windows=-1000:400",
    "colours": "colours=grey", "frames": "frames=8", "longest": "longest=512",
}  # fmt: skip


def _value_of(name: str, value: str) -> Any:
    if name in ("slices", "frames", "longest"):
        return int(value)
    if name == "windows":
        return tuple(_window_of(part) for part in value.split("+"))
    return value


def _window_of(text: str) -> str | Window:
    low, colon, high = text.partition(":")
    return (float(low), float(high)) if colon else text


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """What a model without 3D is shown: ``rgb`` (H, W, 3) uint8."""

    rgb: np.ndarray

    def image(self) -> Image:
        """As a visual of ours, for processors that take these."""
        pixels = np.ascontiguousarray(self.rgb.transpose(2, 0, 1).astype(np.float32) / 255.0)
        return Image(pixels=pixels, modality="unknown", unit="display")


Part = str | Picture


def show(visual: Visual, policy: SlicePolicy) -> tuple[Part, ...]:
    """``visual`` as pictures and words, in the order in which they are to be read; an image is one picture."""
    match visual:
        case Image():
            return (_picture(visual),)
        case Volume():
            return _volume(visual, policy)
        case Video():
            return _clip(visual, policy)
    raise TypeError(f"expected an Image, Volume or Video, got {type(visual).__name__}")


def spread(turns: Sequence[Turn], shown: Sequence[Sequence[Part]]) -> list[tuple[Role, list[Part]]]:
    """(role, parts) of each turn, with what ``show`` made in the places of the visuals.

    Args:
        shown: one for each visual of ``turns``, in their order.
    """
    left = iter(shown)
    messages: list[tuple[Role, list[Part]]] = []
    for turn in turns:
        parts: list[Part] = []
        for part in turn.content:
            parts.extend([part] if isinstance(part, str) else next(left))
        messages.append((turn.role, parts))
    if next(left, None) is not None:
        raise ValueError(f"{len(shown)} visuals were shown for turns with fewer")
    return messages


def _picture(image: Image) -> Picture:
    return _as_picture(picture_channels(image, IntensityRule()))


def _as_picture(channels: np.ndarray) -> Picture:
    """(1 or 3, H, W) in [0, 1]."""
    rgb = np.repeat(channels, 3, axis=0) if len(channels) == 1 else channels
    return Picture(rgb=np.ascontiguousarray((rgb * 255.0).round().astype(np.uint8).transpose(1, 2, 0)))


def _volume(volume: Volume, policy: SlicePolicy) -> tuple[Part, ...]:
    known = volume.orientation is not None
    view = _VIEWS[policy.plane]
    if known:
        volume = reorient(volume, view.orientation)
    depth = len(volume.voxels)
    count = min(depth, policy.slices)
    chosen = middles(depth, count)
    parts: list[Part] = [_about_volume(volume, count, policy, known)]
    # Of the whole volume, so that neighbouring slices are alike.
    shared = None if volume.unit == "HU" else volume_windows(volume, IntensityRule())[0]
    for number, index in enumerate(chosen.tolist(), start=1):
        where = _where(volume, index, number, count, view.lower if known else "first")
        plane = _sized(volume.voxels[index], volume.spacing_mm, policy.longest)
        if shared is not None:
            parts += [f"{where}:", _as_picture(apply_window(plane, shared)[None])]
        elif policy.colours == "rgb":
            channels = np.stack([apply_window(plane, policy.window(place)[1]) for place in range(3)])
            parts += [f"{where}:", _as_picture(channels)]
        else:
            for place in range(len(policy.windows)):
                words, window = policy.window(place)
                parts += [f"{where}, {words}:", _as_picture(apply_window(plane, window)[None])]
    return tuple(parts)


def _about_volume(volume: Volume, count: int, policy: SlicePolicy, known: bool) -> str:
    """The sentences before the slices; ``known``: whether the orientation is."""
    depth, modality = len(volume.voxels), "" if volume.modality == "unknown" else f"{volume.modality} "
    of = f"all {count}" if count == depth else f"{count} of {depth}"
    if not known:
        slices = f"A {modality}volume, shown as {of} slices in the order of the file."
        sides = "Its orientation is unknown: the sides of the patient cannot be told from the pictures."
    else:
        view = _VIEWS[policy.plane]
        slices = f"A {modality}volume, shown as {of} {policy.plane} slices {view.run}."
        sides = f"In each picture {view.sides}."
    if volume.spacing_mm is None:
        distance = "Distances are unknown."
    else:
        step = volume.spacing_mm[0]
        distance = f"It is {depth * step:.0f} mm long in this direction" + (
            f"; the slices lie about {depth * step / count:.1f} mm apart." if count > 1 else "."
        )
    colours = ""
    if volume.unit == "HU" and policy.colours == "rgb":
        shown = [f"{name}: {policy.window(place)[0]}" for place, name in enumerate(("red", "green", "blue"))]
        colours = f" Colours are windows of the same slice; {', '.join(shown)}."
    return f"{slices} {distance} {sides}{colours}"


def _where(volume: Volume, index: int, number: int, count: int, lower: str) -> str:
    if volume.spacing_mm is None:
        return f"Slice {number} of {count}"
    return f"Slice {number} of {count}, {(index + 0.5) * volume.spacing_mm[0]:.1f} mm from the {lower} end"


def _sized(plane: np.ndarray, spacing: tuple[float, ...] | None, longest: int) -> np.ndarray:
    """(H, W) with square pixels where the spacing is known, no longer than ``longest``: models know no spacing."""
    height, width = plane.shape
    size = [float(height), float(width)]
    if spacing is not None:
        fine = min(spacing[-2:])
        size = [height * spacing[-2] / fine, width * spacing[-1] / fine]
    if longest and max(size) > longest:
        size = [length * longest / max(size) for length in size]
    rows, columns = (max(1, round(length)) for length in size)
    return plane if (rows, columns) == plane.shape else resize_volume(plane[None], (1, rows, columns))[0]


def _clip(video: Video, policy: SlicePolicy) -> tuple[Part, ...]:
    chosen = frames_at(video.times_s, policy.frames)
    first, last = float(video.times_s[0]), float(video.times_s[-1])
    modality = "" if video.modality == "unknown" else f"{video.modality} "
    of = f"all {len(chosen)}" if len(chosen) == len(video.frames) else f"{len(chosen)} of {len(video.frames)}"
    parts: list[Part] = [f"A {modality}clip of {last - first:.1f} s, shown as {of} frames in their order in time."]
    for number, index in enumerate(chosen.tolist(), start=1):
        channels = [_sized(channel, video.spacing_mm, policy.longest) for channel in video.frames[index]]
        when = float(video.times_s[index]) - first
        parts += [f"Frame {number} of {len(chosen)}, t = {when:.2f} s:", _as_picture(np.stack(channels))]
    return tuple(parts)


def frames_at(times_s: np.ndarray, count: int) -> np.ndarray:
    """Indices, rising and distinct, of at most ``count`` frames: those nearest to the middles of equal spans of time.

    Args:
        times_s: (T,) seconds, increasing, at whatever distances.
    """
    if len(times_s) <= count:
        return np.arange(len(times_s))
    span = float(times_s[-1] - times_s[0])
    wanted = times_s[0] + (np.arange(count) + 0.5) * span / count
    after = np.clip(np.searchsorted(times_s, wanted), 1, len(times_s) - 1)
    nearest = np.where(wanted - times_s[after - 1] <= times_s[after] - wanted, after - 1, after)
    return np.unique(nearest)


def pictures_in(parts: Sequence[Part]) -> int:
    """How many pictures ``parts`` show."""
    return sum(isinstance(part, Picture) for part in parts)


def words_in(parts: Sequence[Part]) -> int:
    """Characters of text in ``parts``; with the pictures what a prompt is long."""
    return sum(len(part) for part in parts if isinstance(part, str))
