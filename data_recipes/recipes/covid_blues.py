"""COVID-BLUES: bedside lung ultrasound clips with a severity score, A-lines, B-lines and comments.

Wiedemann et al., COVID-BLUES: a prospective study on the value of AI in lung ultrasound analysis, IEEE JBHI
(2025), doi 10.1109/JBHI.2025.3543686. Clips are named patient_<id>_<side><position>, for example patient_22_R1.
Clinical variables use -99 and -96 for "not known"; these are left out, never read as values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from medvlm.data_recipes.asking import YES_NO, ask, visual_at, yes_no
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.sample import Sample, Split
from medvlm.data_recipes.splits import split_patients
from medvlm.data_recipes.tables import Row, make_samples, read_csv

CLIPS, SEVERITY, CLINICAL = "lus_videos", "severity.csv", "clinical_variables.csv"
SCORES = ("0", "1", "2", "3")
SIDES = {"L": "left", "R": "right"}
SEXES = {"0": "female", "1": "male"}
NAME = re.compile(r"patient_(?P<patient>\w+)_(?P<side>[LR])(?P<position>\d+)$")


def _parts(row: Row) -> re.Match[str]:
    name = row.text("video_file")
    match = NAME.match(name)
    if match is None:
        raise BadSample(
            f"clip name {name!r} is not patient_<id>_<L or R><position>",
            where=row.where,
            mend="use the table as published",
        )
    return match


def _number(row: Row, key: str) -> float | None:
    text = row.optional(key)
    try:
        value = None if text is None else float(text)
    except ValueError as error:
        raise BadSample(f"{key!r} is {text!r}, expected a number", where=row.where, mend="fix the cell") from error
    return None if value is None or value in (-99, -96) else value


def _clinical(folder: Path) -> tuple[dict[str, dict[str, Any]], list[BadSample]]:
    """Facts per patient for ``metadata``; the table may be absent."""
    path = folder / CLINICAL
    facts: dict[str, dict[str, Any]] = {}
    refused: list[BadSample] = []
    if not path.is_file():
        return facts, refused
    for row in read_csv(path, required=("patient_id", "pat_sex", "pat_age", "cov_test")):
        try:
            if isinstance(row, BadSample):
                raise row
            age, sex, test = (_number(row, key) for key in ("pat_age", "pat_sex", "cov_test"))
            facts[row.text("patient_id")] = {
                "age": "unknown" if age is None else str(round(age)),
                "sex": "unknown" if sex is None else SEXES.get(str(round(sex)), "unknown"),
                "covid_test": {None: "unknown", 0.0: "negative", 1.0: "positive"}.get(test, "unknown"),
            }
        except BadSample as bad:
            refused.append(bad)
    return facts, refused


def _questions(row: Row) -> Iterator[dict[str, Any]]:
    score = _number(row, "Severity Score")
    if score is not None:
        yield {
            "topic": "severity",
            "prompt": "What is the severity score of this lung ultrasound clip, from 0 (normal) to 3 (worst)?",
            "answers": [f"{score:g}"],
            "kind": "closed",
            "choices": SCORES,
        }
    for column in ("A-lines", "B-lines"):
        stated = row.optional(column)
        if stated is None:
            continue
        yield {
            "topic": column.lower(),
            "prompt": f"Does this lung ultrasound clip show {column}?",
            "answers": [yes_no(stated) or stated],
            "kind": "closed",
            "choices": YES_NO,
        }
    comment = row.optional("comments")
    if comment is not None:
        yield {
            "topic": "comment",
            "prompt": "Comment on this lung ultrasound clip.",
            "answers": [comment],
            "kind": "open",
        }


def _make(row: Row, *, folder: Path, splits: dict[str, Split], clinical: dict[str, dict[str, Any]]) -> Iterable[Sample]:
    parts = _parts(row)
    name = row.text("video_file")
    patient = f"{RECIPE.name}/{parts['patient']}"
    path = folder / CLIPS / f"{name}.mp4"
    clip = visual_at(path, kind="video", where=row.where, mend=f"download the clips from {RECIPE.url}")
    questions = list(_questions(row))
    if not questions:
        raise BadSample(
            "score, lines and comments are all empty", where=row.where, mend="fill in one of them or drop the row"
        )
    for question in questions:
        yield ask(
            sample_id=f"{RECIPE.name}/{name}/{question['topic']}",
            patient_id=patient,
            source=RECIPE.name,
            licence=RECIPE.licence,
            split=splits[patient],
            visuals=[clip],
            where=row.where,
            metadata={
                "modality": "US",
                "side": SIDES[parts["side"]],
                "position": parts["position"],
                **clinical.get(parts["patient"], {}),
            },
            **question,
        )


def _build(folder: Path) -> Iterator[Sample | BadSample]:
    rows = list(read_csv(folder / SEVERITY, required=("video_file", "Severity Score", "A-lines", "B-lines")))
    clinical, refused = _clinical(folder)
    yield from refused
    names = (NAME.match(row.optional("video_file") or "") for row in rows if isinstance(row, Row))
    splits = split_patients(f"{RECIPE.name}/{match['patient']}" for match in names if match)
    yield from make_samples(rows, partial(_make, folder=folder, splits=splits, clinical=clinical))


RECIPE = Recipe(
    name="covid-blues",
    version="NinaWie/COVID-BLUES (2025)",
    licence="CC BY-NC-ND 4.0",
    url="https://github.com/NinaWie/COVID-BLUES",
    citation="Wiedemann et al., IEEE JBHI (2025), doi 10.1109/JBHI.2025.3543686",
    owned=(SEVERITY, CLINICAL, "variable_explanations.csv", f"{CLIPS}/**/*"),
    matches=lambda folder: (folder / SEVERITY).is_file() and (folder / CLIPS).is_dir(),
    build=_build,
    about=(
        "Bedside lung ultrasound clips of patients with suspected COVID-19, with a severity score, A-lines, B-lines "
        "and free comments per clip."
    ),
    layout=("FOLDER/\n  lus_videos/\n    patient_<id>_<side><position>.mp4\n  severity.csv\n  clinical_variables.csv"),
    questions=(
        "closed: severity from 0 to 3, A-lines, B-lines",
        "open: the comment on the clip",
    ),
    faults=(
        "Clinical variables use -99 and -96 for what is not known; they are left out.",
        "Only part of the clips has comments.",
    ),
    measured="A public subset of 30 clips of 5 patients: 93 samples (75 training, 18 test), none refused.",
)
