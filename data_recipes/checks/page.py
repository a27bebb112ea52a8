"""index.html of a check: verdict, counts, pictures of copies and of odd files, tables; one file without network."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from medvlm.data_recipes.checks.charts import SPLITS, histogram, spread_bars
from medvlm.data_recipes.checks.finding import CHECKS, Finding
from medvlm.data_recipes.checks.survey import Survey
from medvlm.data_recipes.drawing import SERIES
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import write_atomic
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.sample import VisualRef
from medvlm.data_recipes.thumbnails import thumbnail

SPREADS = 8
"""Charts of answers that the page has room for."""

_COPIES = ("test_set_images", "image_copies", "near_copies")
_ODD = {"files": 12, "series_gaps": 4, "spacing": 12, "sides": 4}
"""Checks whose visuals are worth a look, and how many of each are shown."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Findings with their pictures.

    Attributes:
        pictures: PNG of the visual and of its copy; None where it cannot be read.
        rows: how many rows show the same.
    """

    finding: Finding
    pictures: tuple[bytes | None, ...]
    rows: int


def write_page(
    path: Path,
    survey: Survey,
    summary: Mapping[str, Any],
    examples: Mapping[str, Sequence[Finding]],
    visuals: Mapping[str, Mapping[Any, tuple[Finding, int]]],
) -> None:
    """Write the page.

    Args:
        examples: the first findings of each check.
        visuals: of each check, some different visuals or pairs: the first finding, and how many rows show it.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # texts of a data set are untrusted
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(picture=_picture, percent=lambda share: f"{100 * share:.1f}")
    spreads = survey.answers.table()
    measured, budget = survey.measured, survey.plan.budget
    lengths = [
        histogram(measured.tokens, "tokens", budget.tokens),
        histogram(measured.patches, "patches", budget.patches),
        histogram(measured.supervised, "supervised tokens"),
    ]
    html = environment.get_template("check.html").render(
        summary=summary,
        names=CHECKS,
        examples=examples,
        pairs=[_with_pictures(*one) for name in _COPIES for one in visuals.get(name, {}).values()],
        odd=[
            _with_pictures(*one) for name, most in _ODD.items() for one in list(visuals.get(name, {}).values())[:most]
        ],
        licences=survey.licences.table(),
        shortcuts=survey.shortcuts.table(),
        spreads=[(spread, Markup(spread_bars(spread))) for spread in spreads[:SPREADS]],
        all_spreads=len(spreads),
        lengths=[Markup(chart) for chart in lengths if chart is not None],
        colours=dict(zip(SPLITS, SERIES, strict=False)),
    )
    write_atomic(path, html)


def _with_pictures(finding: Finding, rows: int) -> Shown:
    refs = [ref for ref in (finding.visual, finding.other) if ref is not None]
    return Shown(finding=finding, pictures=tuple(_png(ref) for ref in refs), rows=rows)


def _png(ref: VisualRef) -> bytes | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # told when the file was read for the checks
            return thumbnail(read(ref, Path(ref.path).parent))
    except (BadSample, OSError):
        return None  # that it cannot be read is the finding itself


def _picture(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
