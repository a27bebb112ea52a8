"""The box of every finding: the smallest box of whole voxels around all voxels that the finding at least half fills.

Made of the shapes that the renderers blend in, before noise: a pure function of the patient and the spacing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from medvlm.data_recipes.grounding import Box, box_around
from medvlm.data_recipes.phantoms import ct, radiograph
from medvlm.data_recipes.phantoms.anatomy import Spot, frame, heart, lung, soft
from medvlm.data_recipes.phantoms.patient import Finding, VirtualPatient

Boxes = tuple[tuple[Box, ...], ...]
"""For each finding of a patient, in their order, its boxes: one for each nodule, else one; none where nothing shows."""


def ct_boxes(patient: VirtualPatient, spacing_mm: tuple[float, float, float]) -> Boxes:
    """Boxes in the CT volume, of what the lung shows: not what the chest wall or the heart covers."""
    z, y, x = ct.room(spacing_mm)
    at = frame(patient.body, x, y, z)
    placed = list(zip(patient.findings, patient.spots, strict=True))
    enlarged = sum(spot.extent for finding, spot in placed if finding.kind == "cardiomegaly")
    heart_part = soft(heart(patient.body, at, enlarged), 6)

    def shapes(finding: Finding, spot: Spot) -> Iterator[np.ndarray]:
        if finding.kind == "cardiomegaly":
            yield heart_part
            return
        depth, _ = lung(patient.body, at, str(finding.side))
        seen = soft(depth, 6) * (1 - heart_part)
        if finding.kind == "consolidation":
            yield seen * np.clip(1.2 - ct.consolidation_radius(spot, (x, y, z)), 0, 0.5) * 2
        elif finding.kind == "pneumothorax":
            yield seen * ct.free_air(at, spot)
        elif finding.kind == "pleural effusion":
            yield seen * ct.free_fluid(at, spot)
        for cx, cy, cz in spot.centres if finding.kind in ("nodule", "mass") else ():
            away = np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2)
            yield seen * soft(spot.size_mm / 2 - away, 6)

    return tuple(_around(shapes(finding, spot), ct.SHAPE) for finding, spot in placed)


def radiograph_boxes(patient: VirtualPatient, spacing_mm: float) -> Boxes:
    """Boxes in the current radiograph, of the shadow of each finding."""
    body = patient.body
    z, x = radiograph.room(spacing_mm)
    at = frame(body, x, np.full((1, 1), body.y0), z)

    def shapes(finding: Finding, spot: Spot) -> Iterator[np.ndarray]:
        side = str(finding.side)
        if finding.kind == "cardiomegaly":
            yield soft(heart(body, radiograph.replace_y(at, -18.0), spot.extent), 6)
        elif finding.kind == "pleural effusion":
            yield radiograph.fluid(body, at, side, spot)
        elif finding.kind == "pneumothorax":
            depth, _ = lung(body, at, side)
            yield soft(depth, 5) * (1 - soft(radiograph.fallen_lung(body, at, side, spot), 4))
        elif finding.kind == "consolidation":
            ragged = radiograph.ragged_radius(spot, x, z, radiograph.texture_of_findings(body))
            yield np.clip(1.25 - ragged, 0, 0.5) * 2
        else:
            for cx, _, cz in spot.centres:
                yield soft(spot.size_mm / 2 - np.hypot(x - cx, z - cz), 4)

    placed = zip(patient.findings, patient.spots, strict=True)
    return tuple(_around(shapes(finding, spot), (radiograph.SIZE,) * 2) for finding, spot in placed)


def _around(shapes: Iterator[np.ndarray], size: tuple[int, ...]) -> tuple[Box, ...]:
    boxes = (box_around(np.broadcast_to(shape, size) >= 0.5) for shape in shapes)
    return tuple(box for box in boxes if box is not None)
