"""The chest CT: (32, 64, 64) Hounsfield units, slice 0 lowest, rows towards posterior, columns towards the left."""

from __future__ import annotations

import numpy as np

from medvlm.data_recipes.phantoms.anatomy import (
    APEX,
    BASE,
    BODY_HALF,
    Body,
    Frame,
    Spot,
    blend,
    frame,
    heart,
    height_fraction,
    lung,
    soft,
)
from medvlm.data_recipes.phantoms.patient import SIDES, Finding, VirtualPatient

SHAPE = (32, 64, 64)
AIR, LUNG, FAT, SOFT, BONE, FLUID = -1000.0, -850.0, -80.0, 40.0, 400.0, 12.0
"""Hounsfield units."""

CALCIFIED = 150.0
"""Nodules are old granulomas: denser than a mass, and bright in spite of thick slices."""

COLLAPSED = -620.0
"""Lung that has lost part of its air."""


def draw_spacing(rng: np.random.Generator) -> tuple[float, float, float]:
    """(slice, row, column) millimetres, anisotropic and different for each patient; rounded as scanners print it."""
    inplane = round(float(rng.uniform(5.05, 5.35)), 3)
    return round(float(rng.uniform(8.7, 9.3)), 3), inplane, inplane


def room(spacing_mm: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Room coordinates z, y, x in millimetres of the voxel centres, as arrays that broadcast to SHAPE."""
    axes = [((np.arange(n) - (n - 1) / 2) * step).astype(np.float32) for n, step in zip(SHAPE, spacing_mm, strict=True)]
    return axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]


def render_ct(patient: VirtualPatient, spacing_mm: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """(32, 64, 64) int16 HU, at least -1024, centred on the middle of the field of view."""
    body = patient.body
    z, y, x = room(spacing_mm)
    at = frame(body, x, y, z)
    placed = list(zip(patient.findings, patient.spots, strict=True))
    noise = rng.standard_normal(SHAPE, dtype=np.float32)
    hu = _trunk(body, at)
    for side in SIDES:
        depth, _ = lung(body, at, side)
        content = LUNG + 260 * np.clip(noise - 1.5, 0, 1) * (np.abs(at.x) < 85)
        for finding, spot in placed:
            if finding.side == side:
                content = _focal(content, finding, spot, (x, y, z), noise) if spot.centres else content
                content = _pleural(content, at, finding.kind, spot)
        hu = blend(hu, soft(depth, 6), content)
    enlarged = sum(spot.extent for finding, spot in placed if finding.kind == "cardiomegaly")
    hu = blend(hu, soft(heart(body, at, enlarged), 6), SOFT + 5)
    hu = hu + 18 * rng.permutation(noise.reshape(-1)).reshape(SHAPE)
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def _trunk(body: Body, at: Frame) -> np.ndarray:
    """Fat, muscle, ribs, spine, sternum, liver and airway; no lungs yet."""
    depth = (1 - np.sqrt((at.x / BODY_HALF[0]) ** 2 + (at.y / BODY_HALF[1]) ** 2)) * BODY_HALF[1]
    depth = np.broadcast_to(depth, np.broadcast_shapes(at.x.shape, at.y.shape, at.z.shape))
    hu = blend(np.full(depth.shape, AIR, dtype=np.float32), soft(depth, 5), FAT)
    hu = blend(hu, soft(depth - 9, 5), SOFT)
    # Ribs slope down towards the front, so an axial slice meets only parts of them.
    phase = np.cos(2 * np.pi * (at.z - 0.4 * at.y) / 30 + body.rib_phase)
    hu = blend(hu, soft(4.5 - np.abs(depth - 15), 4) * np.clip(2.5 * phase, 0, 1) * (at.z < APEX + 10), BONE)
    hu = blend(hu, soft(17 - np.hypot(at.x, at.y - 72), 6) * (0.8 + 0.2 * np.cos(2 * np.pi * at.z / 27)), BONE)
    sternum = np.minimum(16 - np.abs(at.x), 6 - np.abs(at.y + 86))
    hu = blend(hu, soft(sternum, 5) * soft(85 - np.abs(at.z - 10), 10), BONE * 0.8)
    hu = blend(hu, soft(BASE + 20 - at.z, 12) * soft(depth - 22, 6) * (at.x < 0), 65.0)
    airway = soft(8 - np.hypot(at.x, at.y - 18), 5) * soft(at.z - 35, 10)
    return blend(hu, airway, AIR)


def _focal(
    content: np.ndarray,
    finding: Finding,
    spot: Spot,
    room: tuple[np.ndarray, np.ndarray, np.ndarray],
    noise: np.ndarray,
) -> np.ndarray:
    """What the lung holds once nodules, a mass or a consolidation replace air."""
    x, y, z = room
    if finding.kind == "consolidation":
        radius = consolidation_radius(spot, room)
        # Ill defined and mottled: air is left in parts of the airspace.
        filled = np.clip(1.2 - radius - 0.08 * noise, 0, 0.5) * 2
        return blend(content, filled * np.clip(0.72 + 0.12 * noise, 0, 1), SOFT)
    for cx, cy, cz in spot.centres:
        depth = spot.size_mm / 2 - np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2)
        content = np.maximum(content, blend(content, soft(depth, 6), CALCIFIED if finding.kind == "nodule" else SOFT))
    return content


def consolidation_radius(spot: Spot, room: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """Distance from the centre of a consolidation, 1 on the ellipsoid that it fills; ``room`` is x, y, z."""
    (x, y, z), (cx, cy, cz) = room, spot.centres[0]
    return np.sqrt(((x - cx) / 42) ** 2 + ((y - cy) / 50) ** 2 + ((z - cz) / 28) ** 2)


def free_air(at: Frame, spot: Spot) -> np.ndarray:
    """Membership in [0, 1] of the air in front of a collapsed lung."""
    level = -70 + 140 * (0.22 + 0.42 * spot.extent)
    return soft(level - at.y, 4)


def free_fluid(at: Frame, spot: Spot) -> np.ndarray:
    """Membership in [0, 1] of the fluid behind and below the lung."""
    share = 0.30 + 0.40 * spot.extent
    height = np.clip(1.25 - height_fraction(at.z) / (0.45 + 0.65 * spot.extent), 0, 1)
    return soft(at.y - (76 - 152 * share * height), 5)


def _pleural(content: np.ndarray, at: Frame, kind: str, spot: Spot) -> np.ndarray:
    """Air collects in front and fluid behind and below: the patient lies on the back."""
    if kind == "pneumothorax":
        return blend(np.maximum(content, COLLAPSED), free_air(at, spot), AIR)
    if kind == "pleural effusion":
        return blend(content, free_fluid(at, spot), FLUID)
    return content
