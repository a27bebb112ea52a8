"""What of ours goes with an existing checkpoint: how volumes are shown, windows, budgets; one JSON beside its files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from medvlm.model.intensity import IntensityRule
from medvlm.model.visual import check_per_kind

SETTINGS_FILE = "medvlm_visuals.json"
"""Beside config.json; a checkpoint without it gets the defaults."""


@dataclass(frozen=True, kw_only=True)
class ExternalSettings:
    """How visuals are given to an existing vision-language model.

    Attributes:
        volumes: "slices" shows every slice as an image with its place in millimetres in the text; "video" shows the
            volume as one clip, where the family has a path for clips.
        slices: how a volume of more slices than ``max_depth`` loses some: "nearest", slices at equal distances as they
            are, or "average" over neighbours. None is shown twice.
        max_depth: per kind, the most slices or frames.
        max_pixels: per kind, the most pixels of one image, slice or frame; for families whose pictures have no fixed
            size. What is not named: the image processor's own limit for images, 448 x 448 for slices and frames.
        intensity: fields of IntensityRule: how physical units become the three channels.
        second_in_mm: how many millimetres of depth count as one second when a volume is shown as a clip; 10 makes
            slices of 5 mm the two frames a second that these families were trained on.
    """

    volumes: Literal["slices", "video"] = "slices"
    slices: Literal["nearest", "average"] = "nearest"
    max_depth: Mapping[str, int] = field(default_factory=dict)
    max_pixels: Mapping[str, int] = field(default_factory=dict)
    intensity: Mapping[str, Any] = field(default_factory=dict)
    second_in_mm: float = 10.0

    def __post_init__(self) -> None:
        if self.volumes not in ("slices", "video"):
            raise ValueError(f"volumes is {self.volumes!r}; use slices or video")
        if self.slices not in ("nearest", "average"):
            raise ValueError(f"slices is {self.slices!r}; use nearest or average")
        if not self.second_in_mm > 0:
            raise ValueError(f"second_in_mm is {self.second_in_mm}; use a positive number of millimetres")
        for name, values in (("max_depth", self.max_depth), ("max_pixels", self.max_pixels)):
            check_per_kind(name, values)
        object.__setattr__(self, "max_depth", {"volume": 32, "video": 16, **self.max_depth})
        object.__setattr__(self, "max_pixels", dict(self.max_pixels))
        if not isinstance(self.intensity, Mapping):
            raise ValueError(f"intensity is {self.intensity!r}; write fields of IntensityRule, or leave it out")
        object.__setattr__(self, "intensity", dict(self.intensity))
        IntensityRule.from_dict(dict(self.intensity))

    @property
    def rule(self) -> IntensityRule:
        """The rule that ``intensity`` states."""
        return IntensityRule.from_dict(dict(self.intensity))


def settings_from(values: Mapping[str, Any]) -> ExternalSettings:
    """Settings from JSON or YAML.

    Raises:
        ValueError: an unknown name, or a wrong value.
    """
    known = [f.name for f in fields(ExternalSettings)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(
            f"an existing vision-language checkpoint has no processor settings {unknown}; it knows {', '.join(known)}"
        )
    return ExternalSettings(**values)


def read_settings(folder: Path, changes: Mapping[str, Any] | None = None) -> ExternalSettings:
    """The settings saved in ``folder``, or the defaults, with ``changes`` over them; groups are changed key by key."""
    path = folder / SETTINGS_FILE
    saved: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name, value in (changes or {}).items():
        held = saved.get(name)
        saved[name] = {**held, **value} if isinstance(held, dict) and isinstance(value, Mapping) else value
    return settings_from(saved)


def write_settings(folder: Path, settings: ExternalSettings) -> None:
    """Write ``settings`` beside the files of the checkpoint."""
    temporary = folder / f".{SETTINGS_FILE}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(asdict(settings), indent=1, sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(folder / SETTINGS_FILE)
