"""The ultrasound clip: a beating ring of heart muscle in a fan-shaped field, (16, 64, 64) grey values."""

from __future__ import annotations

import numpy as np

from medvlm.data_recipes.phantoms.patient import Finding

FRAMES, SIZE = 16, 64
FRAMES_PER_SECOND = 10

SHORTENING = {None: 0.38, "mild": 0.22, "moderate": 0.13, "severe": 0.04}
"""How much of its radius the cavity loses in systole, by severity of reduced motion."""


def render_cine(findings: tuple[Finding, ...], rng: np.random.Generator) -> np.ndarray:
    """Short-axis view over about two beats: (16, 64, 64) uint8.

    The wall keeps its area while the cavity shrinks. The pericardium is a thin bright ring; an effusion is a dark
    band between it and the wall.
    """
    by_kind = {finding.kind: finding for finding in findings}
    motion = by_kind.get("reduced motion")
    shortening = SHORTENING[motion.severity if motion else None] + rng.uniform(-0.015, 0.015)
    gap = rng.uniform(5.0, 6.5) if "pericardial effusion" in by_kind else 0.6
    centre_x, centre_y = 31.5 + rng.uniform(-2, 2), 36 + rng.uniform(-2, 2)
    cavity, wall = rng.uniform(10.5, 12.0), rng.uniform(4.0, 5.0)
    beats, start = rng.uniform(1.0, 1.5), rng.uniform(0, 2 * np.pi)
    yy, xx = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
    stretch = rng.uniform(0.94, 1.06)
    radius = np.hypot((xx - centre_x) * stretch, (yy - centre_y) / stretch)
    fan = np.clip((40 - np.abs(np.degrees(np.arctan2(xx - 31.5, yy + 6)))) / 3, 0, 1)
    fan = fan * np.clip((np.hypot(xx - 31.5, yy + 6) - 10) / 3, 0, 1) * np.clip(69 - np.hypot(xx - 31.5, yy + 6), 0, 1)
    speckle = rng.rayleigh(0.8, size=(SIZE, SIZE))
    outer = np.sqrt(cavity**2 + (cavity + wall) ** 2 - cavity**2)
    frames = np.empty((FRAMES, SIZE, SIZE), dtype=np.uint8)
    for number in range(FRAMES):
        phase = start + 2 * np.pi * beats * number / FRAMES_PER_SECOND
        inner = cavity * (1 - shortening * (0.5 - 0.5 * np.cos(phase)))
        edge = np.sqrt(inner**2 + outer**2 - cavity**2)
        muscle = np.clip(radius - inner + 0.5, 0, 1) * np.clip(edge - radius + 0.5, 0, 1)
        sac_radius = gap + (outer if "pericardial effusion" in by_kind else edge)
        sac = np.exp(-(((radius - sac_radius - 0.8) / 0.9) ** 2))
        dark = np.clip(sac_radius - radius + 0.5, 0, 1) * (1 - muscle)
        grey = 0.26 * (1 - dark) + 0.04 * dark + 0.42 * muscle
        grain = 0.65 * speckle + 0.35 * rng.rayleigh(0.8, size=(SIZE, SIZE))
        grey = fan * np.clip(grey * (0.55 + 0.45 * grain) + 0.75 * sac, 0, 1)
        frames[number] = np.rint(255 * grey).astype(np.uint8)
    return frames
