"""Licences: which rows stand under which terms, and what those terms forbid."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from medvlm.data_recipes.checks.catalogue import Catalogue, Seen
from medvlm.data_recipes.checks.finding import Finding

UNSTATED = re.compile(r"^\W*$|^(unknown|none|n/?a|unstated|not stated|unlicen[cs]ed|todo|tbd|\?+)\b", re.IGNORECASE)
"""What people write where they do not know; medvlm data walk writes "not stated: ask the holder of the files"."""

TERMS = {
    "non-commercial": re.compile(r"\bNC\b|non-?\s?commercial|research (use )?only|academic", re.IGNORECASE),
    "no derivatives": re.compile(r"\bND\b|no-?\s?deriv", re.IGNORECASE),
    "share alike": re.compile(r"\bSA\b|share-?\s?alike|\bA?GPL", re.IGNORECASE),
    "credentialed": re.compile(r"credential|physionet|data use agreement|\bDUA\b|restricted", re.IGNORECASE),
}
"""Words of licences, and what they demand. A reading aid: the licence itself decides."""


@dataclass(frozen=True, kw_only=True)
class LicenceRow:
    """One row of the table: a source, its licence, how many rows under test, and the terms that were recognised."""

    source: str
    licence: str
    rows: int
    terms: tuple[str, ...]


class Licences:
    """Counts licences per source, and finds rows that state none."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._first: dict[tuple[str, str], int] = {}
        self._unstated: list[int] = []

    def see(self, row: Seen) -> None:
        if row.registered:
            return
        key = (row.sample.source, row.sample.licence.strip())
        self._counts[key] += 1
        self._first.setdefault(key, row.number)
        if UNSTATED.search(key[1]):
            self._unstated.append(row.number)

    def table(self) -> list[LicenceRow]:
        """Every source and licence, most rows first."""
        return [
            LicenceRow(source=source, licence=licence, rows=count, terms=terms_of(licence))
            for (source, licence), count in self._counts.most_common()
        ]

    def findings(self, catalogue: Catalogue) -> Iterator[Finding]:
        for number in self._unstated:
            row = catalogue.seen(number)
            yield Finding(
                check="licences",
                severity="error",
                where=row.where,
                sample_id=row.sample.sample_id,
                reason=f"the licence is not stated ({row.sample.licence!r})",
                mend="find out under which terms the source may be used, and write them into the row",
            )
        for one in self.table():
            if strict := [term for term in one.terms if term != "share alike"]:
                yield Finding(
                    check="licences",
                    severity="warning",
                    where=catalogue.where(self._first[one.source, one.licence]),
                    reason=f"{one.rows} rows of {one.source!r} stand under {one.licence!r}: {', '.join(strict)}",
                    mend="make sure that the use of the model keeps these terms, or leave the source out",
                    leave_out=False,
                )


def terms_of(licence: str) -> tuple[str, ...]:
    """Names in TERMS that the words of ``licence`` speak of."""
    return tuple(name for name, words in TERMS.items() if words.search(licence))
