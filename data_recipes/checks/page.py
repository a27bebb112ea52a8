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

from medvlm.data_recipes.checks.charts import histogram, spread_bars
from medvlm.data_recipes.checks.finding import CHECKS, Finding
from medvlm.data_recipes.checks.survey import Survey
from medvlm.data_recipes.drawing import SERIES
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import write_atomic
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.sample import VisualRef
from medvlm.data_recipes.thumbnails import thumbnail

PAIRS, ODD, SPREADS = 12, 12, 8
"""Pictures of pairs, pictures of other findings, and charts of answers that the page has room for."""

_ODD = ("spacing", "files", "sides")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Findings with their pictures.

    Attributes:
        pictures: PNG of the visual and of its copy; None where it cannot be read.
        rows: how many rows of the examples show the same pictures.
    """

    finding: Finding
    pictures: tuple[bytes | None, ...]
    rows: int


def write_page(
    path: Path, survey: Survey, summary: Mapping[str, Any], examples: Mapping[str, Sequence[Finding]]
) -> None:
    """Write the page.

    Args:
        examples: the first findings of each check.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # texts of a data set are untrusted
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(picture=_picture, percent=lambda share: f"{100 * share:.1f}")
    copies = [f for name in ("test_set_images", "image_copies", "near_copies") for f in examples.get(name, ())]
    odd = [finding for name in _ODD for finding in examples.get(name, ())]
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
        pairs=_shown([f for f in copies if f.visual is not None], PAIRS),
        odd=_shown([f for f in odd if f.visual is not None], ODD),
        licences=survey.licences.table(),
        shortcuts=survey.shortcuts.table(),
        spreads=[(spread, Markup(spread_bars(spread))) for spread in spreads[:SPREADS]],
        all_spreads=len(spreads),
        lengths=[Markup(chart) for chart in lengths if chart is not None],
        colours=dict(zip(("train", "validation", "test"), SERIES, strict=False)),
    )
    write_atomic(path, html)


def _shown(findings: Sequence[Finding], most: int) -> list[Shown]:
    """The first ``most`` different pictures or pairs."""
    groups: dict[tuple[str | None, str | None], list[Finding]] = {}
    for finding in findings:
        key = (finding.visual.path if finding.visual else None, finding.other.path if finding.other else None)
        groups.setdefault(key, []).append(finding)
    shown = []
    for group in list(groups.values())[:most]:
        refs = [ref for ref in (group[0].visual, group[0].other) if ref is not None]
        shown.append(Shown(finding=group[0], pictures=tuple(_png(ref) for ref in refs), rows=len(group)))
    return shown


def _png(ref: VisualRef) -> bytes | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # told when the file was read for the checks
            return thumbnail(read(ref, Path(ref.path).parent))
    except BadSample:
        return None  # that it cannot be read is the finding itself


def _picture(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
