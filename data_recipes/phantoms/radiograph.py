"""The upright frontal radiograph: (128, 128) display values, the patient's right on the viewer's left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medvlm.data_recipes.phantoms.anatomy import (
    APEX,
    BASE,
    BODY_HALF,
    CHANGE_SCALE,
    LATERAL,
    MEDIAL,
    Body,
    Frame,
    Spot,
    blend,
    frame,
    heart,
    height_fraction,
    lung,
    moved,
    sign_of,
    soft,
)
from medvlm.data_recipes.phantoms.patient import SIDES, Finding, VirtualPatient

SIZE = 128
MARKER = ("####.", "#...#", "#...#", "####.", "#.#..", "#..#.", "#...#")
"""The letter R, burned in at the viewer's upper left: the patient's right."""


BRANCHES = 11
"""Vessels of each lung."""


def room(spacing_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Room coordinates z, x in millimetres of the pixel centres, as arrays that broadcast to (SIZE, SIZE)."""
    x = ((np.arange(SIZE) - (SIZE - 1) / 2) * spacing_mm)[None, :]
    z = (((SIZE - 1) / 2 - np.arange(SIZE)) * spacing_mm)[:, None]
    return z, x


def render_radiograph(patient: VirtualPatient, spacing_mm: float, rng: np.random.Generator) -> np.ndarray:
    """The current radiograph: (128, 128) float32 in [0, 1], bright where much is absorbed."""
    return _render(patient.body, patient.findings, patient.spots, spacing_mm, rng)


def render_prior(patient: VirtualPatient, spacing_mm: float, rng: np.random.Generator) -> np.ndarray:
    """The earlier radiograph: the first finding as it was then, everything else as now, the patient moved a little."""
    change = patient.findings[0].change
    if change is None:
        raise ValueError(f"{patient.patient_id} has no prior: its first finding has no change; check has_prior first")
    spots = (replace(patient.spots[0], scale=CHANGE_SCALE[change]), *patient.spots[1:])
    body = moved(patient.body, rng)
    shift = (body.x0 - patient.body.x0, 0.0, body.z0 - patient.body.z0)
    spots = tuple(replace(s, centres=tuple((c[0] + shift[0], c[1], c[2] + shift[2]) for c in s.centres)) for s in spots)
    return _render(body, patient.findings, spots, spacing_mm, rng)


def _render(
    body: Body, findings: tuple[Finding, ...], spots: tuple[Spot, ...], spacing: float, rng: np.random.Generator
) -> np.ndarray:
    z, x = room(spacing)
    at = frame(body, x, np.full((1, 1), body.y0), z)
    by_kind = {finding.kind: (finding, spot) for finding, spot in zip(findings, spots, strict=True)}
    texture = np.random.default_rng(body.texture)
    picture = _trunk(at)
    for side in SIDES:
        picture = _show_lung(picture, body, at, side, texture, by_kind.get("pneumothorax"))
    for finding, spot in by_kind.values():
        if spot.centres and spot.scale > 0:
            # Less where the beam is already weakened, so that a lesion before the diaphragm does not glare.
            picture = picture + 1.25 * (1 - picture) * _focal(finding, spot, x, z, texture)
    picture = picture + _bones(body, at)
    enlarged = by_kind["cardiomegaly"][1] if "cardiomegaly" in by_kind else Spot()
    extent = min(enlarged.extent * enlarged.scale, 1.15)
    picture = _cover(picture, 0.95 * soft(heart(body, replace_y(at, -18.0), extent), 6), 0.66)
    if "pleural effusion" in by_kind:
        picture = _effusion(picture, body, at, *by_kind["pleural effusion"])
    picture = np.clip(picture, 0, 1) ** rng.uniform(0.93, 1.07) * rng.uniform(0.95, 1.03)
    picture = picture + 0.014 * rng.standard_normal(picture.shape)
    return _mark(np.clip(picture, 0, 1)).astype(np.float32)


def replace_y(at: Frame, y: float) -> Frame:
    """The same points at another depth (body millimetres)."""
    return replace(at, y=np.full((1, 1), y))


def _trunk(at: Frame) -> np.ndarray:
    """Soft tissue of chest, neck and abdomen, brighter where the body is thick."""
    shoulder = np.clip((at.z - 118) / 45, 0, 1)
    half = BODY_HALF[0] * (1 - 0.66 * shoulder**1.5)
    thick = np.sqrt(np.clip(1 - (at.x / half) ** 2, 0, 1))
    picture = blend(np.full(thick.shape, 0.03), soft((half - np.abs(at.x)), 6), 0.38 + 0.20 * thick)
    picture = picture + 0.11 * soft(24 - np.abs(at.x), 22) * soft(half - np.abs(at.x), 6)
    knob = 0.10 * soft(20 - np.hypot(at.x - 20, at.z - 52), 8)
    picture = picture + knob * soft(np.abs(at.x) - 18, 6)
    return picture + 0.12 * soft(BASE + 8 - at.z, 30) * soft(half - np.abs(at.x), 6)


def _show_lung(
    picture: np.ndarray,
    body: Body,
    at: Frame,
    side: str,
    texture: np.random.Generator,
    pneumothorax: tuple[Finding, Spot] | None,
) -> np.ndarray:
    depth, u = lung(body, at, side)
    field = soft(depth, 5)
    air = 0.30 + 0.12 * np.sqrt(np.clip(1 - u * u, 0, 1))
    vessels = _vessels(at, side, texture)
    if pneumothorax is None or pneumothorax[0].side != side or pneumothorax[1].scale == 0:
        return picture + field * (vessels - air)
    # The lung falls back towards its root; what it leaves is black, without vessels, behind a thin white line.
    spot = pneumothorax[1]
    left_over = fallen_lung(body, at, side, spot)
    rest = soft(left_over, 4)
    edge = np.exp(-((left_over / 2.5) ** 2))
    picture = picture + field * rest * (vessels - air + 0.10)
    picture = blend(picture, field * (1 - rest), 0.05)
    return picture + 0.16 * edge * field


def fallen_lung(body: Body, at: Frame, side: str, spot: Spot) -> np.ndarray:
    """Signed depth inside what a pneumothorax leaves of a lung."""
    shrink = max(0.30, 1 - (0.20 + 0.40 * spot.extent) * spot.scale)
    anchor_x, anchor_z = sign_of(side) * (MEDIAL + 2), BASE + 0.12 * (APEX - BASE)
    fallen = Frame(anchor_x + (at.x - anchor_x) / shrink, at.y, anchor_z + (at.z - anchor_z) / shrink)
    left_over, _ = lung(body, fallen, side)
    return left_over * shrink


def texture_of_findings(body: Body) -> np.random.Generator:
    """The texture of ``body`` as it stands when findings are drawn: after the vessels of both lungs."""
    texture = np.random.default_rng(body.texture)
    for _ in SIDES:
        texture.uniform(-0.1, 0.1, size=BRANCHES)
    return texture


def _vessels(at: Frame, side: str, texture: np.random.Generator) -> np.ndarray:
    """Branches from the lung root outwards, fading and thinning."""
    root_x, root_z = sign_of(side) * 24.0, 5.0
    dx, dz = sign_of(side) * (at.x - root_x), at.z - root_z
    total = np.zeros(np.broadcast_shapes(dx.shape, dz.shape))
    for angle in np.linspace(-1.35, 1.35, BRANCHES) + texture.uniform(-0.1, 0.1, size=BRANCHES):
        along = dx * np.cos(angle) + dz * np.sin(angle)
        across = -dx * np.sin(angle) + dz * np.cos(angle) + 4 * np.sin(along / 19 + 7 * angle)
        width = np.clip(4.0 - along / 40, 1.5, 4.0)
        total += 0.06 * np.exp(-((across / width) ** 2)) * (along > 0) * np.clip(1 - along / 115, 0, 1)
    return np.minimum(total, 0.11)


def _bones(body: Body, at: Frame) -> np.ndarray:
    """Posterior ribs, clavicles and the spine, faint as on a chest exposure."""
    inside = soft(LATERAL + 8 - np.abs(at.x), 8) * soft(np.abs(at.x) - 14, 8)
    inside = inside * soft(at.z - BASE - 5, 10) * soft(APEX + 12 - at.z, 10)
    phase = 2 * np.pi * (at.z + 0.0026 * at.x**2) / 25 + body.rib_phase
    ribs = 0.045 * inside * np.clip(3 * np.cos(phase) - 0.9, 0, 1)
    line = APEX - 14 + 0.16 * np.abs(at.x)
    clavicles = 0.09 * soft(6 - np.abs(at.z - line), 4) * soft(np.abs(at.x) - 16, 6) * soft(128 - np.abs(at.x), 8)
    discs = 0.05 * soft(17 - np.abs(at.x), 5) * np.clip(2 * np.cos(2 * np.pi * at.z / 27) + 0.6, 0, 1)
    return ribs + clavicles + discs * soft(170 - np.abs(at.z), 5)


def _focal(finding: Finding, spot: Spot, x: np.ndarray, z: np.ndarray, texture: np.random.Generator) -> np.ndarray:
    """Brightness that nodules, a mass or a consolidation add."""
    if finding.kind == "consolidation":
        ragged = ragged_radius(spot, x, z, texture)
        return np.clip(1.25 - ragged, 0, 0.5) * 2 * (0.32 + 0.07 * _cloud(texture, x.size, 18))
    strength = 0.48 if finding.kind == "nodule" else 0.42
    total = np.zeros(np.broadcast_shapes(x.shape, z.shape))
    for cx, _, cz in spot.centres:
        depth = spot.size_mm * spot.scale / 2 - np.hypot(x - cx, z - cz)
        total = np.maximum(total, strength * soft(depth, 4))
    return total


def ragged_radius(spot: Spot, x: np.ndarray, z: np.ndarray, texture: np.random.Generator) -> np.ndarray:
    """Distance from the centre of a consolidation, 1 at its ragged edge."""
    (cx, _, cz), grow = spot.centres[0], spot.scale
    radius = np.sqrt(((x - cx) / (42 * grow)) ** 2 + ((z - cz) / (27 * grow)) ** 2)
    return radius + 0.16 * _cloud(texture, x.size, 10)


def _cloud(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """(size, size) smooth noise of about unit spread: ``cells`` random values a side, interpolated."""
    coarse = rng.standard_normal((cells, cells))
    at = np.linspace(0, cells - 1, size)
    rows = np.stack([np.interp(at, np.arange(cells), row) for row in coarse])
    return np.stack([np.interp(at, np.arange(cells), column) for column in rows.T], axis=1)


def _effusion(picture: np.ndarray, body: Body, at: Frame, finding: Finding, spot: Spot) -> np.ndarray:
    return _cover(picture, fluid(body, at, str(finding.side), spot) * (spot.scale > 0), 0.68)


def fluid(body: Body, at: Frame, side: str, spot: Spot) -> np.ndarray:
    """Membership in [0, 1] of fluid that fills the base and climbs the lateral wall (the meniscus)."""
    _, u = lung(body, at, side)
    level = (0.19 + 0.38 * spot.extent) * spot.scale
    climb = np.clip((u + 1) / 2, 0, 1) ** 3
    top = BASE + (APEX - BASE) * min(level, 0.8) * (0.72 + 0.50 * climb)
    # The fluid also hides the dome and the lateral angle, so it reaches below the lung field.
    wall = np.minimum((1 - np.abs(u)) * 49, at.z - BASE + 4)
    return soft(wall, 5) * soft(top - at.z, 8) * (height_fraction(at.z) < 0.95)


def _cover(picture: np.ndarray, mask: np.ndarray, value: float) -> np.ndarray:
    """At least ``value`` where ``mask`` is 1: what is brighter still shows through, as on a film."""
    return picture + mask * np.maximum(value - picture, 0)


def _mark(picture: np.ndarray) -> np.ndarray:
    for row, line in enumerate(MARKER):
        for column, cell in enumerate(line):
            if cell == "#":
                picture[6 + row, 6 + column] = 1.0
    return picture
