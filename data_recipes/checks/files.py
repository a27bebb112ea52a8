"""Files that cannot be read, have changed or name a patient, gaps in series, and spacing that cannot be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medvlm.data_recipes.checks.catalogue import Catalogue, Seen
from medvlm.data_recipes.checks.finding import Finding, Severity
from medvlm.data_recipes.checks.looking import Look
from medvlm.data_recipes.checks.private import MEND, judged_pixels, judged_tags
from medvlm.data_recipes.checks.visuals import Visuals

EXTENTS_MM: dict[str, tuple[float, float]] = {
    "CT": (15.0, 2500.0), "MR": (10.0, 2500.0), "PT": (40.0, 2500.0), "NM": (40.0, 2500.0),
    "CR": (20.0, 1500.0), "DX": (20.0, 1500.0), "MG": (30.0, 500.0), "US": (5.0, 600.0), "XA": (10.0, 1000.0),
}  # fmt: skip
"""Plausible field of view along rows and columns, in mm: from a finger or a tooth to a whole body with its table.
Outside it the numbers are metres, micrometres or those of another series."""

ANY_MM = (0.05, 5000.0)
"""For modalities that are not listed: from a piece of a slide to a room."""

SLICE_MM = (0.05, 50.0)
"""Plausible distance of neighbouring slices."""

TOLERANCE = 0.1
"""Share by which a stated spacing may differ from the file's: manifests round."""


class Files:
    """Finds visuals that are refused, have changed since they were hashed, name a patient, or have a wrong spacing."""

    def __init__(self, visuals: Visuals) -> None:
        self.visuals = visuals
        self._faults: dict[int, list[tuple[str, Severity, str, str]]] = defaultdict(list)
        self._spacing: dict[int, tuple[float, ...]] = {}
        self._sha256: dict[int, str] = {}

    def look(self, number: int, look: Look) -> None:
        """Take note of one visual."""
        if look.sha256 is not None:
            self._sha256[number] = look.sha256
        faults = self._faults[number]
        if look.refusal:
            reason, mend = look.refusal["reason"], look.refusal["mend"]
            faults.append((kind_of_refusal(reason), "error", reason, mend))
        elif (fault := spacing_fault(look)) is not None:
            faults.append(("spacing", "error", fault, "correct the spacing in the file, or leave it out"))
        if look.tags:
            faults.append(("names_in_tags", *judged_tags(look.tags), MEND))
        if look.burned and (judged := judged_pixels(look.burned)) is not None:
            faults.append(("names_in_pixels", *judged, MEND))
        if not faults:
            del self._faults[number]
        if look.spacing_mm is not None:
            self._spacing[number] = look.spacing_mm

    def can_be_read(self, row: Seen) -> bool:
        """Whether no visual of the row was refused."""
        refused = ("files", "series_gaps", "spacing")
        numbers = [self.visuals.number_of(ref) for ref in row.visuals()]
        return not any(check in refused for number in numbers for check, *_ in self._faults.get(number, ()))

    def findings(self, catalogue: Catalogue) -> Iterator[Finding]:
        """One per row, visual and fault; of registered test sets only what keeps them from being compared."""
        for number, faults in sorted(self._faults.items()):
            for row, _ in self.visuals.rows_of(number):
                seen = catalogue.seen(row)
                for check, severity, reason, mend in faults:
                    if not seen.registered:
                        yield self._finding(seen, number, check, severity, reason, mend)
                    elif check in ("files", "series_gaps"):
                        yield self._finding(seen, number, check, "warning", f"cannot be compared: {reason}", mend)

    def compare(self, row: Seen) -> Iterator[Finding]:
        """What a row states of its visuals and the files deny: SHA-256, metadata ``spacing_mm``."""
        stated = row.sample.metadata.get("spacing_mm")
        refs = row.visuals()
        for ref in refs:
            number = self.visuals.number_of(ref)
            if ref.sha256 is not None and self._sha256.get(number, ref.sha256) != ref.sha256:
                yield self._finding(
                    row, number, "files", "error", f"the {ref.kind} has changed since it was hashed",
                    "build the manifest again",
                )  # fmt: skip
            own = self._spacing.get(number)
            if stated is not None and len(refs) == 1 and own is not None and _differ(stated, own):
                yield self._finding(
                    row, number, "spacing", "error", f"the manifest states {stated} mm, the file {_told(own)} mm",
                    "correct metadata.spacing_mm, or the file",
                )  # fmt: skip

    def _finding(self, row: Seen, number: int, check: str, severity: Severity, reason: str, mend: str) -> Finding:
        ref = self.visuals.ref(number)
        return Finding(
            check=check, severity=severity, where=row.where, sample_id=row.sample.sample_id,
            reason=f"{Path(ref.path).name}: {reason}", mend=mend,
            visual=None if check.startswith("names_") else ref,  # a picture of what must not be seen
        )  # fmt: skip


def kind_of_refusal(reason: str) -> str:
    """The check that a reader's refusal belongs to."""
    if "a slice is missing or the spacing changes" in reason:
        return "series_gaps"
    return "spacing" if "spacing" in reason.lower() and "slices of" not in reason else "files"


def spacing_fault(look: Look) -> str | None:
    """Why the spacing of a visual cannot be; None when it can, or is unknown."""
    if look.spacing_mm is None:
        return None
    spacing = look.spacing_mm[-2:]
    extents = [count * step for count, step in zip(look.shape[-2:], spacing, strict=True)]
    low, high = EXTENTS_MM.get(look.modality, ANY_MM)
    known = look.modality if look.modality in EXTENTS_MM else "any"
    if min(extents) < low or max(extents) > high:
        return (
            f"{extents[0]:.4g} x {extents[1]:.4g} mm in all (spacing {spacing[0]:.4g} x {spacing[1]:.4g} mm); "
            f"{low:g} to {high:g} mm are expected of {known} images"
        )
    if len(look.spacing_mm) == 3 and not SLICE_MM[0] <= look.spacing_mm[0] <= SLICE_MM[1]:
        return f"slices {look.spacing_mm[0]:.4g} mm apart; {SLICE_MM[0]:g} to {SLICE_MM[1]:g} mm are expected"
    return None


def _told(spacing: tuple[float, ...]) -> list[float]:
    return [round(step, 4) for step in spacing]


def _differ(stated: Any, own: tuple[float, ...]) -> bool:
    """Whether stated millimetres, in any order of axes, are not those of the file."""
    if not isinstance(stated, list) or not all(isinstance(s, int | float) and s > 0 for s in stated):
        return True
    if len(stated) != len(own):
        return True
    return any(abs(a - b) > TOLERANCE * b for a, b in zip(sorted(stated), sorted(own), strict=True))
