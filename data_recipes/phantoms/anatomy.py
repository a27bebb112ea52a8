"""The geometry that both modalities share: a body, two lungs, a heart and where findings lie, in millimetres.

The patient frame is x towards the patient's Left, y towards Posterior, z towards Superior. Shapes are signed depths
(positive inside, millimetres), so that ``soft`` turns any of them into a membership in [0, 1] with a chosen blur.
The anatomy is a stylised adult chest: plausible proportions, no one's anatomy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

BASE, APEX = -95.0, 115.0
"""z of the lowest and highest lung of a body of scale 1, millimetres."""

MEDIAL, LATERAL, LUNG_DEPTH = 20.0, 118.0, 76.0
BODY_HALF = (146.0, 105.0)
"""Half width (x) and half depth (y) of the trunk."""

ZONE_CENTRES = {"lower": 0.25, "middle": 0.50, "upper": 0.76}
"""Fraction of the lung height; zones are its thirds, the lower one counted from the dome of the diaphragm."""

HEART_GROWTH = {"mild": 0.45, "moderate": 0.72, "severe": 1.0}
PLEURAL_EXTENT = {"small": 0.0, "moderate": 0.5, "large": 1.0}
HEART_TILT = (float(np.cos(0.5)), float(np.sin(0.5)))
"""Cosine and sine of the angle between the long axis of the heart and the horizontal."""

CHANGE_SCALE = {"larger": 0.5, "smaller": 1.6, "unchanged": 1.0, "new": 0.0}
"""How large the finding was on the prior, relative to now."""


@dataclass(frozen=True, kw_only=True)
class Body:
    """Size and position of one patient; ``texture`` seeds what must look alike on prior and current."""

    scale: float
    x0: float
    y0: float
    z0: float
    heart_width: float
    dome_right: float
    rib_phase: float
    texture: int


@dataclass(frozen=True, kw_only=True)
class Spot:
    """Where a finding lies.

    Attributes:
        centres: (x, y, z) of each nodule, mass or consolidation; empty otherwise.
        size_mm: diameter of a focal finding at ``scale`` 1.
        extent: 0 (least) to 1 (most) for effusion, pneumothorax and heart.
        scale: 1 now; CHANGE_SCALE on the prior.
    """

    centres: tuple[tuple[float, float, float], ...] = ()
    size_mm: float = 0.0
    extent: float = 0.0
    scale: float = 1.0


def draw_body(rng: np.random.Generator) -> Body:
    """A body whose size varies by 6 % and whose position varies by a centimetre."""
    return Body(
        scale=float(rng.uniform(0.94, 1.05)),
        x0=float(rng.uniform(-6, 6)),
        y0=float(rng.uniform(-6, 6)),
        z0=float(rng.uniform(-9, 9)),
        heart_width=float(rng.uniform(88, 97)),
        dome_right=float(rng.uniform(4, 12)),
        rib_phase=float(rng.uniform(0, 2 * np.pi)),
        texture=int(rng.integers(2**31)),
    )


def moved(body: Body, rng: np.random.Generator) -> Body:
    """The same body at another visit: a few millimetres elsewhere, another breath."""
    dx, dz = rng.uniform(-4, 4, size=2)
    return replace(body, x0=body.x0 + float(dx), z0=body.z0 + float(dz))


def sign_of(side: str) -> int:
    """+1 for the patient's left (x grows towards it), -1 for the right."""
    return {"left": 1, "right": -1}[side]


def soft(depth: np.ndarray, blur: float) -> np.ndarray:
    """Membership in [0, 1] of a signed depth in millimetres, with an edge ``blur`` millimetres wide."""
    return np.clip(depth / blur + 0.5, 0.0, 1.0)


def blend(picture: np.ndarray, mask: np.ndarray, value: np.ndarray | float) -> np.ndarray:
    """``picture`` pulled towards ``value`` where ``mask`` is 1."""
    return picture + mask * (value - picture)


@dataclass(frozen=True)
class Frame:
    """Points in the body's own unscaled millimetres; arrays that broadcast against each other."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray


def frame(body: Body, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Frame:
    """Room coordinates (millimetres) -> the body's frame."""
    return Frame((x - body.x0) / body.scale, (y - body.y0) / body.scale, (z - body.z0) / body.scale)


def height_fraction(z: np.ndarray) -> np.ndarray:
    """0 at the lung base, 1 at the apex."""
    return np.clip((z - BASE) / (APEX - BASE), 0.0, 1.0)


def lung(body: Body, at: Frame, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Signed depth inside one lung and the lateral coordinate u (-1 medial wall, 1 lateral wall).

    Each axial section is an ellipse that narrows towards the apex; the base is a dome, higher on the right.
    """
    lateral = sign_of(side) * at.x
    narrow = np.clip((height_fraction(at.z) - 0.4) / 0.6, 0.0, 1.0) ** 2.2
    wall = LATERAL * (1 - 0.48 * narrow)
    half = (wall - MEDIAL) / 2
    u = (lateral - (wall + MEDIAL) / 2) / half
    v = at.y / (LUNG_DEPTH * (1 - 0.5 * narrow))
    square = u * u + v * v
    dome = 26 + (body.dome_right if side == "right" else 0.0)
    floor = BASE + dome * np.clip(1 - square, 0.0, 1.0)
    return np.minimum(np.minimum(half * (1 - np.sqrt(square)), at.z - floor), APEX - 30 * square - at.z), u


def heart_axes(body: Body, extent: float) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Centre and half axes of the heart; ``extent`` 0 is normal, 1 a severely enlarged heart.

    The cardiothoracic ratio runs from about 0.4 to 0.7; the left border moves more than the right one.
    """
    growth = 80.0 * extent
    half = (body.heart_width + growth) / 2 + 3
    centre = (12.0 + 0.22 * growth, -18.0, BASE + 48.0 + 0.10 * growth)
    return centre, (half, 46.0 + 0.22 * growth, 42.0 + 0.26 * growth)


def heart(body: Body, at: Frame, extent: float) -> np.ndarray:
    """Signed depth inside the heart, millimetres (approximate: exact on the shortest axis)."""
    centre, half = heart_axes(body, extent)
    # The long axis points to the patient's left and down.
    dx, dz = at.x - centre[0], at.z - centre[2]
    along, across = (dx * HEART_TILT[0] - dz * HEART_TILT[1]), (dx * HEART_TILT[1] + dz * HEART_TILT[0])
    radius = np.sqrt((along / half[0]) ** 2 + ((at.y - centre[1]) / half[1]) ** 2 + (across / half[2]) ** 2)
    return (1 - radius) * min(half)


def place(
    body: Body,
    kind: str,
    side: str | None,
    zone: str | None,
    severity: str | None,
    size_mm: int | None,
    count: int,
    rng: np.random.Generator,
) -> Spot:
    """Choose where a finding lies, in room millimetres, so that it is inside its zone and clear of the heart."""
    if kind == "cardiomegaly":
        return Spot(extent=HEART_GROWTH[str(severity)] + float(rng.uniform(-0.04, 0.04)))
    if zone is None or side is None:
        return Spot(extent=PLEURAL_EXTENT[str(severity)] + float(rng.uniform(-0.06, 0.06)))
    z = BASE + (APEX - BASE) * (ZONE_CENTRES[zone] + rng.uniform(-0.025, 0.025))
    # The lower zone shares its medial part with the heart, the upper one is narrow.
    lateral = {"lower": 79.0, "middle": 70.0, "upper": 57.0}[zone] + rng.uniform(-6, 6)
    y = rng.uniform(-14, 14)
    offsets = [(0.0, 0.0)]
    if count > 1:
        turn, ring = rng.uniform(0, 2 * np.pi), (17.0 if count == 2 else 20.0)
        angles = turn + 2 * np.pi * np.arange(count) / count
        offsets = [(ring * float(np.cos(a)), ring * float(np.sin(a))) for a in angles]
    depths = y + (rng.uniform(-6, 6, size=count) if count > 1 else np.zeros(1))
    centres = tuple(
        (
            float(body.x0 + body.scale * sign_of(side) * (lateral + dx)),
            float(body.y0 + depth),
            float(body.z0 + body.scale * (z + dz)),
        )
        for (dx, dz), depth in zip(offsets, depths, strict=True)
    )
    return Spot(centres=centres, size_mm=float(size_mm or 0))
