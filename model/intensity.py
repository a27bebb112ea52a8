"""Physical units -> channels in [0, 1]: per visual, never per slice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np

from medvlm.model.visual import Image, Video, Visual, Volume

Window = tuple[float, float]

HU_WINDOWS: dict[str, Window] = {
    "wide": (-1024.0, 1024.0),
    "lung": (-1350.0, 150.0),
    "soft_tissue": (-135.0, 215.0),
    "brain": (0.0, 80.0),
    "bone": (-500.0, 1300.0),
}
"""(low, high) in HU. "wide", "soft_tissue" and "brain" are MedGemma's three channels (model card, 2025)."""

HU_PRESETS: dict[str, tuple[str, str, str]] = {
    "chest": ("lung", "soft_tissue", "bone"),
    "medgemma": ("wide", "soft_tissue", "brain"),
}
"""Three windows under one name."""

RADIOGRAPHS = ("CR", "DX", "MG", "RF", "XA", "RG", "PX", "IO")
"""DICOM modalities (PS3.3 C.7.3.1.1.1) of projection radiography: what ``IntensityRule.radiograph`` is about."""

HISTOLOGY = ("SM", "GM", "histology", "pathology")
"""Modalities of transmitted-light microscopy: DICOM's two and the words that manifests use."""

WHITE_PERCENTILE, WHITE_FLOOR = 99.0, 0.7
"""The background of a slide is taken from this percentile of each channel, and believed when every channel has at
least this value there: H&E tissue without background stays below it in green."""


def _refuse(name: str, value: object, expected: str, mend: str) -> None:
    raise ValueError(f"intensity.{name} is {value!r}; expected {expected}; {mend}")


def _pair(name: str, value: Any, expected: str, mend: str) -> Window:
    """``value`` as two finite numbers, low < high."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence) or len(value) != 2:
        _refuse(name, value, expected, mend)
    if any(isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v) for v in value):
        _refuse(name, value, expected, mend)
    low, high = float(value[0]), float(value[1])
    if not low < high:
        _refuse(name, value, f"{expected}, low < high", mend)
    return low, high


@dataclass(frozen=True, kw_only=True)
class IntensityRule:
    """How physical units become channels; kept in the processor's config, so that inference equals training.

    Attributes:
        hu_windows: a name of HU_PRESETS, or three names of HU_WINDOWS or (low, high) pairs in HU: the channels of a CT.
        percentiles: (low, high) in percent that become 0 and 1 where neither unit nor file asks for a window: MR.
        percentiles_of: "all" voxels of the visual, or "non_zero" ones, for scans padded or stripped with zeros. The
            default takes all, because 0 is a value like others in many units: a CT stored without its unit has water
            there.
        suv_window: (low, high) in SUV for PET, before any window of the file; None treats SUV as any other unit.
        radiograph: "file" shows a radiograph as its file asks (VOI LUT or window); "percentile" stretches
            ``percentiles`` of what the reader gives. The reader has applied a VOI LUT by then: what that cut is gone.
        histology: "as_stored", or "white_balance": see :func:`white_balanced`.

    Raises:
        ValueError: names the field, its value, what was expected and the mend.
    """

    hu_windows: str | Sequence[str | Sequence[float]] = ("lung", "soft_tissue", "bone")
    percentiles: Sequence[float] = (0.5, 99.5)
    percentiles_of: Literal["all", "non_zero"] = "all"
    suv_window: Sequence[float] | None = None
    radiograph: Literal["file", "percentile"] = "file"
    histology: Literal["as_stored", "white_balance"] = "as_stored"

    def __post_init__(self) -> None:
        self._check_windows()
        low, high = _pair("percentiles", self.percentiles, "two percentages", "use for example [0.5, 99.5]")
        if low < 0 or high > 100:
            _refuse("percentiles", self.percentiles, "percentages from 0 to 100", "use for example [0.5, 99.5]")
        if self.suv_window is not None:
            _pair("suv_window", self.suv_window, "(low, high) in SUV or null", "use for example [0, 10]")
        for name, allowed in (
            ("percentiles_of", ("all", "non_zero")),
            ("radiograph", ("file", "percentile")),
            ("histology", ("as_stored", "white_balance")),
        ):
            if getattr(self, name) not in allowed:
                _refuse(name, getattr(self, name), " or ".join(map(repr, allowed)), "choose one of them")

    def _check_windows(self) -> None:
        mend = f"use a preset of {sorted(HU_PRESETS)}, or three of {sorted(HU_WINDOWS)} or pairs such as [-1000, 400]"
        if isinstance(self.hu_windows, str):
            if self.hu_windows not in HU_PRESETS:
                _refuse("hu_windows", self.hu_windows, "a known preset", mend)
            return
        if len(self.hu_windows) != 3:
            raise ValueError(
                f"hu_windows must name three channels, got {list(self.hu_windows)}: the patch embedding has three; "
                "repeat a window, or leave one out"
            )
        unknown = [w for w in self.hu_windows if isinstance(w, str) and w not in HU_WINDOWS]
        if unknown:
            raise ValueError(f"unknown HU windows {unknown}; {mend}")
        for window in self.hu_windows:
            if not isinstance(window, str):
                _pair("hu_windows", window, "(low, high) in HU", mend)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> IntensityRule:
        """The rule of the processor argument ``intensity``.

        Raises:
            ValueError: an unknown field, or what the constructor refuses.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"intensity has no field {unknown[0]!r}; use one of {', '.join(known)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Every field as plain JSON types, defaults written out: a later default cannot change a saved processor."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @property
    def windows(self) -> tuple[Window, ...]:
        """The three windows in HU."""
        chosen = HU_PRESETS[self.hu_windows] if isinstance(self.hu_windows, str) else self.hu_windows
        return tuple(HU_WINDOWS[w] if isinstance(w, str) else (float(w[0]), float(w[1])) for w in chosen)

    def window_of(self, values: np.ndarray) -> Window:
        """The window between ``percentiles`` of all of ``values``, or of those that are not 0."""
        if self.percentiles_of == "non_zero" and values.any():
            values = values[values != 0]
        return percentile_window(values, *self.percentiles)


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def apply_window(values: np.ndarray, window: Window) -> np.ndarray:
    """Map ``window`` linearly to [0, 1] and clip what lies outside."""
    low, high = window
    if not high > low:
        raise ValueError(f"a window needs low < high, got {window}")
    return ((values - low) / (high - low)).clip(0.0, 1.0).astype(np.float32)


def percentile_window(values: np.ndarray, low: float = 0.5, high: float = 99.5) -> Window:
    """The window between two percentiles of all values; a constant visual gets a window of width 1."""
    bottom, top = (float(v) for v in np.percentile(values, [low, high]))
    return (bottom, top) if top > bottom else (bottom, bottom + 1.0)


def white_balanced(pixels: np.ndarray) -> np.ndarray:
    """Divide each channel by its background, so that the empty glass of a slide becomes white.

    This is the von Kries (1902) adaptation in RGB: it removes lamp and camera, the part of a slide's colour that is
    no stain; ratios within a channel, and so the optical density of the stains, are kept. Reinhard's and Macenko's
    normalisations (2001, 2009) are not neutral: they move the stains themselves to those of a reference slide, which
    hides a pale or dark stain that a pathologist would report. A picture without background is left alone.

    Args:
        pixels: (3, H, W) in [0, 1].
    """
    white = np.percentile(pixels, WHITE_PERCENTILE, axis=(1, 2)).astype(np.float32)
    if white.min() < WHITE_FLOOR:
        return pixels
    return (pixels / white[:, None, None]).clip(0.0, 1.0)


def to_channels(visual: Visual, rule: IntensityRule) -> np.ndarray:
    """Return ``visual`` as (3, D, H, W) float32 in [0, 1].

    HU goes through the three windows of ``rule``, one a channel; any other physical unit through the file's own window,
    else through percentiles of the whole visual; what is already for display stays. Grey fills three channels alike.
    ``rule`` may say otherwise for PET, radiographs and histology.

    Args:
        visual: an image has D 1; a video has D frames.
        rule: of the processor.
    """
    match visual:
        case Video():
            channels = visual.frames.transpose(1, 0, 2, 3)
        case Image():
            channels = picture_channels(visual, rule)[:, None]
        case Volume():
            channels = np.stack([apply_window(visual.voxels, window) for window in volume_windows(visual, rule)])
        case _:
            raise TypeError(f"expected an Image, Volume or Video, got {type(visual).__name__}")
    return np.repeat(channels, 3, axis=0) if channels.shape[0] == 1 else channels


def volume_windows(volume: Volume, rule: IntensityRule) -> tuple[Window, ...]:
    """The windows of the channels of ``volume``: three for HU, else the one that all channels share."""
    return rule.windows if volume.unit == "HU" else (_window(volume, volume.voxels, rule),)


def picture_channels(image: Image, rule: IntensityRule) -> np.ndarray:
    """(C, H, W) in [0, 1] of an image: C is 1 where its three channels are alike."""
    if image.unit == "HU":
        return np.stack([apply_window(image.pixels[0], window) for window in rule.windows])
    return _picture(image, rule)


def _picture(image: Image, rule: IntensityRule) -> np.ndarray:
    """(C, H, W) in [0, 1] of an image that is not in HU."""
    if rule.radiograph == "percentile" and image.modality in RADIOGRAPHS:
        return apply_window(image.pixels, rule.window_of(image.pixels))
    if image.unit != "display":
        return apply_window(image.pixels, _window(image, image.pixels, rule))
    if rule.histology == "white_balance" and image.modality in HISTOLOGY and len(image.pixels) == 3:
        return white_balanced(image.pixels)
    return image.pixels


def _window(visual: Image | Volume, values: np.ndarray, rule: IntensityRule) -> Window:
    if visual.unit == "SUV" and rule.suv_window is not None:
        low, high = rule.suv_window
        return float(low), float(high)
    return visual.window or rule.window_of(values)
