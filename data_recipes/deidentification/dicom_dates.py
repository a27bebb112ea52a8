"""Dates of DICOM (DA and DT, PS3.5 6.2), moved by whole days; the time of day stays."""

from __future__ import annotations

import re
from datetime import date, timedelta

_WHOLE = re.compile(r"\s*(\d{4})[.]?(\d{2})[.]?(\d{2})(\d{2,6}(?:\.\d{1,6})?)?([+-]\d{4})?\s*")


def moved(value: str, days: int) -> str | None:
    """``value`` moved by ``days``; None when it is no whole date ("2019", "201903", a range, nonsense)."""
    match = _WHOLE.fullmatch(value)
    if match is None:
        return None
    try:
        day = date(int(match[1]), int(match[2]), int(match[3])) + timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    return f"{day.year:04d}{day.month:02d}{day.day:02d}{match[4] or ''}{match[5] or ''}"
