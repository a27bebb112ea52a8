"""How settings are refused, and how a field says what it means for a training that is resumed."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any, NoReturn

from medvlm.data_recipes.typed_yaml import BadConfig


def refuse(reason: str, mend: str) -> NoReturn:
    """Raise BadConfig; the reader of the YAML adds file and line."""
    raise BadConfig(reason, where="configuration", mend=mend)


def check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Refuse a number outside of [low, high], and infinity."""
    if not low <= value <= high or math.isinf(value):
        limit = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:.10g}"
        refuse(f"{name} is {value:g}", f"use a number {limit}")


def aside(default: Any) -> Any:
    """A field that may change between a start and a resume, because it changes no weight; it has no fingerprint."""
    return field(default=default, metadata={"aside": True})


def later(default: Any) -> Any:
    """A field that came after the first release: at its default, older trainings keep their fingerprint."""
    return field(default=default, metadata={"later": True})
