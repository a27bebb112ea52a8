"""A page in one file: its templates, styles and scripts put together, and what it may load: nothing."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from medvlm.data_recipes.manifest import write_atomic
from medvlm.eval.report_tables import title_of, unit_of

HERE = Path(__file__).parent
SCRIPTS = ("report_viewer.js", "report.js")


def write_page(path: Path, template: str, **content: Any) -> None:
    """Render ``template`` of this folder with ``content`` to ``path``.

    The page states a content security policy: it loads nothing, and runs no script but its own, whose hash is in the
    policy. So even a text that escaped its escaping could not run.
    """
    script = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    assert "</script" not in script.lower(), "a script that names its own end would end there"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    html = _environment().get_template(template).render(
        policy=policy,
        style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        **content,
    )  # fmt: skip
    write_atomic(path, html)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,  # what a model wrote is untrusted text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=_percent, points=_points, number=_number, short=_short, p_value=_p_value, picture=_picture,
        sum_values=_sum_values, sentence=_sentence, with_unit=_with_unit,
    )  # fmt: skip
    environment.globals.update(titles=title_of, units=unit_of)
    return environment


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _sentence(text: str) -> str:
    """``text`` with a capital first letter and everything else as it is."""
    return text[:1].upper() + text[1:]


def _points(value: float) -> str:
    """A difference of shares in percent points, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def _p_value(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _with_unit(row: dict[str, Any], unit: str = "share") -> dict[str, Any]:
    return row | {"unit": unit}


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _picture(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _sum_values(counts: dict[str, int]) -> int:
    return sum(counts.values())
