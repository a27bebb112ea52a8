"""Identifiers in the texts of rows: found by worker processes, some hundred rows at a time, with a journal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

from medvlm.data_recipes.checks.catalogue import Catalogue, Seen
from medvlm.data_recipes.checks.finding import Finding, Severity
from medvlm.data_recipes.checks.journal import Journal
from medvlm.data_recipes.checks.private import MEND
from medvlm.data_recipes.checks.workers import enough, in_order
from medvlm.data_recipes.deidentification import protected, text, text_patterns, words
from medvlm.data_recipes.deidentification.text import Identifier, find_identifiers
from medvlm.data_recipes.progress import tracking

WEAK_KINDS = ("date", "url", "ip_address")
"""Kinds that texts of public sources hold without a patient behind them: warnings."""

_ROWS = 500
"""Rows of one line of the journal, and of one task of a worker."""


def private_text_findings(
    catalogue: Catalogue, journal: Journal, *, workers: int = 1, progress: bool = False
) -> Iterator[Finding]:
    """Rows under test whose texts hold identifiers; kinds and places are told, never the words.

    Args:
        journal: of an earlier run over the same manifests, which is not repeated.
    """
    state = " ".join([_rules(), *catalogue.fingerprints()])
    total = catalogue.under_test()
    keys = {
        start: hashlib.sha256(f"{state} {start}".encode()).hexdigest()[:32] for start in range(0, total, _ROWS)
    }  # fmt: skip
    missing = [start for start, key in keys.items() if key not in journal]
    scan = partial(_scan, manifests=tuple(catalogue.manifests), total=total)
    done = min(total, (len(keys) - len(missing)) * _ROWS)
    with tracking("searching texts for names", total, done=done, show=progress) as track:
        for start, rows in in_order(scan, missing, workers=enough(workers, len(missing), 4), at_once=1):
            journal.add({"key": keys[start], "rows": rows})
            track.advance(min(_ROWS, total - start))
    for key in keys.values():
        for number, sample_id, severity, reason in journal.get(key)["rows"]:
            yield Finding(
                check="names_in_text", severity=severity, where=catalogue.where(number), sample_id=sample_id,
                reason=reason, mend=MEND,
            )  # fmt: skip


def _scan(start: int, manifests: tuple[Path, ...], total: int) -> list[list[Any]]:
    catalogue = _catalogue(manifests)
    found: list[list[Any]] = []
    for number in range(start, min(start + _ROWS, total)):
        row = catalogue.row(number)
        judged = judged_texts(row.texts()) if isinstance(row, Seen) else None
        if isinstance(row, Seen) and judged is not None:
            found.append([number, row.sample.sample_id, *judged])
    return found


def judged_texts(texts: tuple[str, ...]) -> tuple[Severity, str] | None:
    """How grave the identifiers in the texts of a row are, with kinds and places; None when there are none."""
    places = [(place, one) for place, text_ in enumerate(texts, start=1) for one in _found(text_)]
    if not places:
        return None
    told = [
        f"{one.kind.replace('_', ' ')} in text {place}, characters {one.start} to {one.end}"
        for place, one in places[:5]
    ]
    more = f" and {len(places) - 5} more" if len(places) > 5 else ""
    return ("warning" if all(one.kind in WEAK_KINDS for _, one in places) else "error"), ", ".join(told) + more


@lru_cache(maxsize=1 << 16)
def _found(content: str) -> tuple[Identifier, ...]:
    """Questions come again and again, and the rules take a millisecond for each."""
    return find_identifiers(content)


@cache
def _catalogue(manifests: tuple[Path, ...]) -> Catalogue:
    return Catalogue(manifests)


def _rules() -> str:
    """SHA-256 of the rules: other ones do not believe an old journal."""
    files = [Path(str(module.__file__)) for module in (text, text_patterns, protected, words)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
