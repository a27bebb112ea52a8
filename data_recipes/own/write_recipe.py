"""A guess -> the text of a recipe with comments: ready to build after two lines are filled in."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from medvlm.data_recipes.own.guess import DEFAULT_SHARES, Guess
from medvlm.data_recipes.own.guess_studies import StudyGuess
from medvlm.data_recipes.own.look import Found, Table
from medvlm.data_recipes.own.private import examples
from medvlm.data_recipes.own.settings import Ask

FILL_IN = "# >>> FILL IN"


def name_of(folder: Path) -> str:
    return re.sub(r"[^\w.-]+", "-", folder.resolve().name).strip("-.") or "own"


def _flow(value: Any) -> str:
    """One line of YAML: JSON is YAML."""
    return json.dumps(value, ensure_ascii=False)


def _path(path: Path, home: Path) -> str:
    """Relative to the recipe where it lies beside or below it, else absolute: both may be moved together."""
    path, home = path.resolve(), home.resolve()
    if path == home:
        return "."
    return os.path.relpath(path, home) if home in path.parents else str(path)


def _ask_lines(asks: Iterable[Ask]) -> list[str]:
    lines = ["ask:"]
    for one in asks:
        given = {f.name: getattr(one, f.name) for f in fields(one)}
        shown = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in given.items()
            if name in ("answer", "prompt", "kind") or (value and value != "other")
        }
        first, *rest = shown.items()
        lines.append(f"  - {first[0]}: {_flow(first[1])}")
        lines += [f"    {name}: {_flow(value)}" for name, value in rest]
    return lines


def _head(found: Found, name: str) -> list[str]:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found.files.items()) if count)
    return [
        "# A recipe for your own data, written by `medvlm data init`. Every line is yours to change: docs/own-data.md.",
        f"# Found: {kinds}{' (and more files that were not looked at)' if found.more else ''}.",
        f"name: {_flow(name)}  # source and beginning of all ids",
    ]


def _licence() -> list[str]:
    return ["", f"{FILL_IN}: what the holder of the files allows; 'own' if they are yours.", "licence:"]


def _column_lines(table: Table) -> list[str]:
    lines = [
        "",
        f"# Columns of {table.path.name}, with values that several rows share with no identifiers and no prose:",
    ]
    for name in table.columns:
        shown = examples(name, (row.get(name) for row in table.rows))
        lines.append(f"#   {name}: {_flow(shown)[1:-1] if shown else '(not shown)'}".replace("\n", " "))
    return lines


def recipe_of_rows(found: Found, tables: tuple[Table, ...], guessed: Guess, home: Path) -> str:
    """The recipe of a folder with rows."""
    table, why = tables[0], guessed.why
    lines = _head(found, name_of(found.root))
    lines += [f"format: {guessed.format}  # {why['format']}", "paths:"]
    lines += [f"  - {_flow(_path(one.path, home))}" for one in tables]
    if table.encoding != "utf-8":
        lines.append(f"encoding: {table.encoding}  # the file is not UTF-8")
    if table.delimiter != ",":
        lines.append(f"delimiter: {_flow(table.delimiter)}")
    if "images" in why:
        lines.append(f"images: {_flow(_path(guessed.images, home))}  # {why['images']}")
    else:
        lines.append(f"images: {_flow(_path(guessed.images, home))}  # no column names files that are there: check it")
    if guessed.suffix:
        lines.append(f"suffix: {_flow(guessed.suffix)}  # the rows leave it out")
    kept = {"visuals": list(guessed.fields.visuals), "turns": guessed.fields.turns}
    if any(kept.values()):
        lines += ["fields:", *(f"  {name}: {_flow(value)}" for name, value in kept.items() if value)]
    lines += _licence()
    lines += [
        "",
        f"{FILL_IN}: whose a row is, for example one of",
        *(f"#   patient: {{column: {_flow(name)}}}" for name in guessed.patients),
        "#   patient: {path: 'images/(p[0-9]+)/'}   (an expression with one group, in the path of the first visual)",
        "#   patient: {folder: true}                (the folder in which the first visual lies)",
        "#   patient: {dicom: true}                 (PatientID of the first visual)",
        "#   patient: {row: true}                   (no two rows are of one patient)",
        "patient:",
    ]
    lines += ["", *_split_lines(guessed, tables, home)]
    if guessed.format == "table":
        lines += ["", *_ask_section(guessed)]
    else:
        lines += ["", "question: vqa  # of validation and test: closed where the answer is yes or no, else open"]
    lines += [
        "",
        "# What files do not say about themselves, for each kind of visual:",
        "# reader: {volume: {unit: HU, modality: CT}, image: {modality: CR, spacing_mm: [0.14, 0.14]}}",
    ]
    return "\n".join(lines + _column_lines(table)) + "\n"


def _ask_section(guessed: Guess) -> list[str]:
    if guessed.ask:
        return [f"# {guessed.why['ask']}", *_ask_lines(guessed.ask)]
    return [
        f"{FILL_IN}: no column looks like an answer, a caption, a report or a label.",
        "ask: []  # such as [{answer: COLUMN, prompt: 'Is there an effusion?', kind: vqa}]",
    ]


def _split_lines(guessed: Guess, tables: tuple[Table, ...], home: Path) -> list[str]:
    split, why = guessed.split, guessed.why["split"]
    if split.column:
        return [f"split: {{column: {_flow(split.column)}}}  # {why}"]
    if split.files:
        files = {_path(one.path, home): split.files[str(one.path)] for one in tables}
        return [f"split:  # {why}", f"  files: {_flow(files)}"]
    return [f"split: {_flow({'shares': split.shares})}  # {why}"]


def recipe_of_studies(found: Found, guessed: StudyGuess, home: Path) -> str:
    """The recipe of a folder of DICOM studies with reports."""
    lines = _head(found, name_of(found.root))
    lines += ["format: dicom", f"paths: [{_flow(_path(guessed.folder, home))}]"]
    if guessed.reports is None:
        lines += [
            "",
            f"{FILL_IN}: no text is named by a study, an accession, a patient or a folder, and no table has such a "
            "column.",
            "#   reports: {path: FOLDER_OF_TXT, by: accession}     (by: study_uid, accession, patient or folder)",
            "#   reports: {path: TABLE.csv, by: accession, column: COLUMN_OF_THE_KEY, text: COLUMN_OF_THE_REPORT}",
            "reports:",
        ]
    else:
        how = guessed.reports
        said: dict[str, Any] = {"path": _path(Path(how.path), home), "by": how.by}
        if how.column:
            said |= {"column": how.column, "text": how.text}
        lines.append(f"reports: {_flow(said)}  # {guessed.why}")
        if guessed.encoding != "utf-8":
            lines.append(f"encoding: {guessed.encoding}  # the reports are not UTF-8")
        if guessed.table is not None and guessed.table.delimiter != ",":
            lines.append(f"delimiter: {_flow(guessed.table.delimiter)}")
    lines += _licence()
    lines += [
        "",
        f"{FILL_IN}: whose a study is, for example one of",
        f"#   patient: {{dicom: true}}             (PatientID, which {guessed.with_patient} of {guessed.headers} "
        "headers have)",
        "#   patient: {path: 'images/(p[0-9]+)/'} (an expression with one group, in the path of the first file)",
        "patient:",
        "",
        f"split: {_flow({'shares': DEFAULT_SHARES})}  # a hash of the patient decides",
        "",
        "# answer: report, or a section of it: findings, impression, ...",
        *_ask_lines([Ask(answer="report", prompt="Write the report.", kind="report", topic="report")]),
        "",
        "one_sample_per: study  # or series",
        'kinds: ["image", "volume", "video"]  # which visuals of a study are shown',
        "# reader: {volume: {resample_gaps: true}}",
    ]
    return "\n".join(lines) + "\n"
