"""Figures as inline SVG that follow the text colour of the page they stand in."""

from __future__ import annotations

import re
from io import StringIO
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK = "#010203"
"""A colour used for text and axes only, replaced by the page's own: readable on light and dark alike."""

SERIES = ("#2a7f9e", "#c77d2e", "#8a6bb0", "#4f8f4a", "#b5525c", "#7d8590")
"""Colours of lines and bars that stand beside each other."""


def svg_of(figure: Figure, label: str) -> str:
    """``figure`` as an SVG element without size, date or fixed text colour."""
    buffer = StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": label, "font.family": "sans-serif"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px inherit", text)
    # Inside of HTML an SVG needs no namespace, and a page that refers to nothing holds no address.
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text, count=2)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def axes_of(width: float, height: float) -> tuple[Figure, Any]:
    """An empty figure of ``width`` x ``height`` inches, and its axes, without frame."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0.0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0.0)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(INK)
        spine.set_alpha(0.35)
    axes.tick_params(colors=INK, length=0, labelsize=11)
    return figure, axes
