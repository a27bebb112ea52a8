"""Lines over steps, and bars of shares, as inline SVG. By hand: a plotting library would take seconds of each stage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

from medvlm.eval.running_mean import running_mean

COLOURS = (
    "#c77d2e", "#b5525c", "#8a6bb0", "#7d8590", "#2a7f9e", "#4f8f4a", "#a08a2c", "#c06aa0", "#9aa5ab",
)  # fmt: skip
"""Of lines and bars that stand beside each other, in the order in which they are given."""

WIDTH, HEIGHT = 640, 230
LEFT, RIGHT, TOP, BOTTOM = 62, 10, 10, 26
POINTS = 300
"""Of one line; of more, neighbours are averaged."""

Line = tuple[str, Sequence[float], Sequence[float | None]]
"""Name, steps, values."""


def lines_svg(title: str, lines: Sequence[Line], *, percent: bool = False, smooth: bool = True) -> str:
    """``lines`` in one frame, with a legend when there are several; empty when no line has a finite value.

    Args:
        percent: values are shares.
        smooth: draw a running mean over the values themselves, which are drawn paler.
    """
    drawn = [(name, *_finite(steps, values)) for name, steps, values in lines]
    drawn = [line for line in drawn if line[1]]
    if not drawn:
        return ""
    low, high = _range([value for _, _, values in drawn for value in values])
    first = min(steps[0] for _, steps, _ in drawn)
    last = max(steps[-1] for _, steps, _ in drawn)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((step - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / (high - low))

    parts = []
    for tick in _ticks(low, high):
        at = y(tick)
        text = f"{tick:.0%}" if percent else f"{tick:.4g}"
        parts.append(f'<line x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{text}</text>')
    for step, anchor in {first: "start", last: "end"}.items():
        parts.append(f'<text x="{x(step):.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">step {step:,.0f}</text>')
    for number, (name, steps, values) in enumerate(drawn):
        colour = COLOURS[number % len(COLOURS)]
        steps, values = _fewer(steps, values)
        points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in zip(steps, values, strict=True))
        if len(steps) == 1:
            parts.append(f'<circle cx="{x(steps[0]):.1f}" cy="{y(values[0]):.1f}" r="3" fill="{colour}"/>')
        pale = ' opacity="0.35" stroke-width="1"' if smooth and len(steps) > 20 else ' stroke-width="1.8"'
        told_name = f"<title>{escape(name)}</title>"
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"{pale}>{told_name}</polyline>')
        if smooth and len(steps) > 20:
            mean = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in zip(steps, running_mean(values), strict=True))
            parts.append(f'<polyline points="{mean}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
    return _figure(title, parts, [line[0] for line in drawn] if len(drawn) > 1 else [], WIDTH, HEIGHT)


def shares_svg(title: str, shares: Mapping[str, float]) -> str:
    """One bar divided by ``shares``, which are laid beside each other; empty when they sum to nothing."""
    whole = sum(shares.values())
    if whole <= 0:
        return ""
    parts, at = [], 0.0
    told = []
    for number, (name, value) in enumerate((name, value) for name, value in shares.items() if value > 0):
        wide = WIDTH * value / whole
        colour = COLOURS[number % len(COLOURS)]
        label = f"{name} {value / whole:.1%}"
        parts.append(
            f'<rect x="{at:.1f}" y="0" width="{wide:.1f}" height="26" fill="{colour}">'
            f"<title>{escape(label)}</title></rect>"
        )
        told.append(label)
        at += wide
    return _figure(title, parts, told, WIDTH, 26)


def _figure(title: str, parts: Sequence[str], legend: Sequence[str], width: int, height: int) -> str:
    entries = "".join(
        f'<span><span class="dot" style="background:{COLOURS[number % len(COLOURS)]}"></span>{escape(name)}</span>'
        for number, name in enumerate(legend)
    )
    below = f'<div class="legend">{entries}</div>' if entries else ""
    svg = f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {width} {height}">{"".join(parts)}</svg>'
    return f"<figure><figcaption>{escape(title)}</figcaption>{svg}{below}</figure>"


def _finite(steps: Sequence[float], values: Sequence[float | None]) -> tuple[list[float], list[float]]:
    pairs = [(s, v) for s, v in zip(steps, values, strict=True) if v is not None and math.isfinite(v)]
    return [float(s) for s, _ in pairs], [float(v) for _, v in pairs]


def _fewer(steps: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    if len(steps) <= POINTS:
        return steps, values
    edges = [round(i * len(steps) / POINTS) for i in range(POINTS + 1)]
    parts = [slice(a, b) for a, b in pairwise(edges) if b > a]
    return [_mean(steps[part]) for part in parts], [_mean(values[part]) for part in parts]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low >= 0 and low < 0.5 * high:
        low = 0.0
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return (low if low == 0 else low - margin), high + margin


def _ticks(low: float, high: float) -> list[float]:
    """About four round numbers between ``low`` and ``high``."""
    rough = (high - low) / 4
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step) + 1)]
