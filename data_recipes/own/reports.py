"""Reports of studies by their key, from a folder of .txt files or a CSV file; on disk while a build lasts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.own.rows import csv_rows
from medvlm.data_recipes.own.settings import Ask, Filled, Reports
from medvlm.data_recipes.own.visuals import written_text
from medvlm.data_recipes.reports.sections import sections
from medvlm.data_recipes.tables import Row

REPORT = "report"
"""What ``ask`` calls the whole report; sections are called by their names."""


class ReportStore:
    """Reports by key. A million reports do not stand in memory: they lie in a database that SQLite removes itself."""

    def __init__(self, filled: Filled) -> None:
        """
        Raises:
            BadSample: there is no such file or folder.
        """
        assert filled.recipe.reports is not None
        self._how: Reports = filled.recipe.reports
        self._path = filled.path(self._how.path)
        self._data = sqlite3.connect("")
        self._data.execute("CREATE TABLE reports (key TEXT PRIMARY KEY, place TEXT, told TEXT, used INTEGER)")
        self._recipe = filled.recipe
        wanted = "a CSV file, because reports.column is given" if self._how.column else "a folder of .txt files"
        if self._path.is_file() != bool(self._how.column) or not self._path.exists():
            raise BadSample(f"expected {wanted}", where=str(self._path), mend="correct reports in the recipe")

    def fill(self) -> Iterator[BadSample]:
        """Read all of them; refused rows and files come out."""
        rows = self._csv() if self._how.column else self._texts()
        for row in rows:
            if isinstance(row, BadSample):
                yield row
                continue
            key, place, told = row
            known = self._data.execute("SELECT place FROM reports WHERE key = ?", (key,)).fetchone()
            if known is not None:
                yield BadSample(
                    f"a report with the same key stands at {known[0]}", where=place, mend="keep one report per key"
                )
                continue
            self._data.execute("INSERT INTO reports VALUES (?, ?, ?, 0)", (key, place, told))

    def _csv(self) -> Iterator[tuple[str, str, str] | BadSample]:
        assert self._how.column and self._how.text
        for row in csv_rows(self._path, self._recipe.encoding, self._recipe.delimiter):
            if isinstance(row, BadSample):
                yield row
                continue
            try:
                key, text = written_text(row, self._how.column), written_text(row, self._how.text)
            except BadSample as bad:
                yield bad
                continue
            if not key or not text:
                empty = self._how.text if key else self._how.column
                yield BadSample(f"{empty!r} is empty", where=row.where, mend="fill it in or drop the row")
                continue
            yield key, row.where, json.dumps({**row.values, REPORT: text})

    def _texts(self) -> Iterator[tuple[str, str, str] | BadSample]:
        for path in sorted(self._path.rglob("*.txt")):
            try:
                text = path.read_text(encoding=self._recipe.encoding).strip()
            except UnicodeDecodeError as error:
                yield BadSample(
                    f"not {self._recipe.encoding} at byte {error.start}",
                    where=str(path),
                    mend="write encoding: cp1252 (or what the file was saved in) in the recipe",
                )
                continue
            if text:
                yield path.stem, str(path), json.dumps({REPORT: text})
            else:
                yield BadSample("the report is empty", where=str(path), mend="fill it in or remove the file")

    def __contains__(self, key: str) -> bool:
        return self._data.execute("SELECT 1 FROM reports WHERE key = ?", (key,)).fetchone() is not None

    def take(self, key: str) -> Row | None:
        """The row of a report, which then counts as used: its columns, ``report``, and its sections by name."""
        found = self._data.execute("SELECT place, told FROM reports WHERE key = ?", (key,)).fetchone()
        if found is None:
            return None
        self._data.execute("UPDATE reports SET used = 1 WHERE key = ?", (key,))
        values: dict[str, Any] = json.loads(found[1])
        return Row(where=found[0], number=0, values=values | self._sections(values[REPORT]))

    def _sections(self, text: str) -> dict[str, str]:
        """The sections that the recipe asks about; one that the report lacks is empty."""
        names = {one.answer for one in self._recipe.ask if self._is_section(one)}
        if not names:
            return {}
        read = sections(text)
        return {name: read.text_of(name) or "" for name in names}

    def _is_section(self, one: Ask) -> bool:
        return one.answer != REPORT and one.answer in SECTIONS

    def unused(self) -> Iterator[BadSample]:
        """Reports that no study asked for."""
        for (place,) in self._data.execute("SELECT place FROM reports WHERE used = 0 ORDER BY place"):
            yield BadSample(
                "no image belongs to this report",
                where=place,
                mend="add the images, or check reports.by in the recipe",
            )


SECTIONS = ("findings", "impression", "findings and impression", "indication", "history", "comparison", "technique")
