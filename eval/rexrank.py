"""Predictions as ReXrank takes them: out of a run folder, and of other people's files back in.

A predictions file is the study file with ``model_prediction`` in each record (rajpurkarlab/ReXrank, example_files). Its
scorer, CXR-Report-Metric, reads two tables of study_id and report and silently keeps the studies that stand in both:
a model that skips its hard studies is rewarded. Here every study must be there, and no other.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import write_atomic
from medvlm.data_recipes.tables import Row, read_csv
from medvlm.eval.plan import Ask
from medvlm.eval.rows import read_rows
from medvlm.eval.run_folder import read_plan, responses_of
from medvlm.eval.tasks.report_study import sections_of
from medvlm.eval.tasks.rexrank import read_object

PREDICTION = "model_prediction"


Records = dict[str, dict[str, Any]]
"""Study id -> its record as ReXrank has it, with ``model_prediction``."""


def ground_truth(findings: str | None, impression: str | None) -> str:
    """The reference as ReXrank's script writes it, with a literal None for a section that is not there."""
    return f"Findings: {findings} Impression: {impression}"


def predictions_from(run: Path) -> Records:
    """The reports of a run folder, asked with their own pictures, as a predictions file of ReXrank in the order asked.

    Raises:
        ValueError: it is no run folder or has no extractions, it asked for no reports, a study was asked for two
            reports, or some studies were not answered; names how many and the first.
    """
    asks = [ask for ask in read_plan(run) if ask.condition == "image" and ask.question.kind == "report"]
    if not asks:
        raise ValueError(f"{run} asked for no reports; give the folder of a run of iu-xray, mimic-cxr or chexpert-plus")
    studies = [ask.item.sample.study_id for ask in asks]
    twice = sorted({study for study in studies if studies.count(study) > 1}) if len(set(studies)) < len(asks) else []
    if twice:
        raise ValueError(f"{run} asked for more than one report of {len(twice)} studies, first {twice[0]}")
    answered = {row["request_id"] for row in responses_of(run)}
    missing = [ask.item.sample.study_id for ask in asks if ask.request_id not in answered]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(asks)} studies were not answered, first {missing[0]}: the scorer of ReXrank would "
            "leave them out without a word. Finish the run, see its quarantine.jsonl, and export again"
        )
    read = {row["request_id"]: row["value"] for row in read_rows(run / "extractions.jsonl")}
    unread = [ask.item.sample.study_id for ask in asks if ask.request_id not in read]
    if unread:
        raise ValueError(
            f"{len(unread)} answers, first that of {unread[0]}, have no row in extractions.jsonl; run medvlm eval "
            f"extract {run}"
        )
    return {ask.item.sample.study_id: _record(ask, read[ask.request_id] or "") for ask in asks}


def empty_in(records: Records) -> tuple[str, ...]:
    """Studies whose prediction is "": nothing was written, or nothing but unfinished thinking."""
    return tuple(study for study, record in records.items() if not record[PREDICTION].strip())


def _record(ask: Ask, prediction: str) -> dict[str, Any]:
    findings, impression = _sections(ask)
    published = ask.item.sample.metadata.get("published") or {
        "image_path": [Path(ref.path).name for ref in ask.item.sample.visuals()]
    }
    return {
        **published,
        "section_findings": findings,
        "section_impression": impression,
        "report": ground_truth(findings, impression),
        PREDICTION: prediction,
    }


def _sections(ask: Ask) -> tuple[str | None, str | None]:
    """Findings and impression of the reference; a report of another form is all findings."""
    try:
        return sections_of(ask.question.answers[0])
    except ValueError:
        return ask.question.answers[0], None


def write_tables(references: Path, predicted: Path, records: Records) -> None:
    """Write the two tables that CXR-Report-Metric reads (study_id, report), with the same studies in the same order."""
    for path, key in ((references, "report"), (predicted, PREDICTION)):
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["study_id", "report"])
        table.writerows([study, record[key]] for study, record in records.items())
        write_atomic(path, text.getvalue())


def read_predictions(path: Path, studies: Iterable[str] | None = None) -> dict[str, str]:
    """Study id -> predicted report, of a predictions file (.json) or of a table study_id, report (.csv).

    Args:
        studies: those that must be there, and no other; None: as the file has them.

    Raises:
        ValueError: the file cannot be read, a study stands in it twice, a prediction is missing or no text, or the
            studies are not those asked for; names how many and the first. An empty text is a prediction.
    """
    try:
        found = _from_table(path) if path.suffix.lower() == ".csv" else _from_json(path)
    except BadSample as bad:
        raise ValueError(str(bad)) from bad
    if studies is not None:
        _match(found, list(studies), path)
    return found


def _from_json(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    wrong: list[str] = []
    for study, record in read_object(path).items():
        text = record.get(PREDICTION) if isinstance(record, dict) else record
        if isinstance(text, str):
            found[study] = text
        else:
            wrong.append(study)
    if wrong:
        raise ValueError(
            f"{path}: {len(wrong)} of {len(wrong) + len(found)} studies have no text as {PREDICTION!r}, first "
            f"{wrong[0]}; write the prediction, an empty one as an empty text"
        )
    return found


def _from_table(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for row in read_csv(path, required=("study_id", "report")):
        if not isinstance(row, Row):
            raise row
        study = row.text("study_id")
        if study in found:
            raise ValueError(f"{row.where}: study {study} stands in the table twice; keep one row")
        found[study] = str(row.values["report"])
    return found


def _match(found: Mapping[str, str], wanted: list[str], path: Path) -> None:
    missing = [study for study in wanted if study not in found]
    unknown = sorted(found.keys() - set(wanted))
    if missing or unknown:
        said = []
        if missing:
            said.append(f"{len(missing)} of {len(wanted)} studies are missing, first {missing[0]}")
        if unknown:
            said.append(f"{len(unknown)} studies are not of the split, first {unknown[0]}")
        raise ValueError(
            f"{path}: {'; '.join(said)}. A score over the studies that happen to be there is no score of the task: "
            "give a prediction for each study, an empty one if need be, and for no other"
        )
