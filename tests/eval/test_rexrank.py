"""ReXrank predictions: out of a run, in again, and what is refused by name and number."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from medvlm.eval.controls import Condition
from medvlm.eval.models import ConstantModel, OracleModel, Request, Response
from medvlm.eval.plan import make_plan
from medvlm.eval.rexrank import (
    empty_in,
    ground_truth,
    predictions_from,
    read_predictions,
    write_tables,
)
from medvlm.eval.rows import write_json, write_rows
from medvlm.eval.run import Settings, evaluate_task
from medvlm.eval.run_folder import read_plan, write_plan
from medvlm.eval.task import Loaded, load
from medvlm.eval.tasks import chexpert_plus, iu_xray

IMAGE_ONLY: tuple[Condition, ...] = ("image",)


def loaded(task_folder: Path) -> Loaded:
    chexpert_plus.TASK.example(task_folder)
    return load(chexpert_plus.TASK, task_folder, partial=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An oracle's run of the made-up CheXpert Plus."""
    folder = tmp_path_factory.mktemp("rexrank")
    settings = Settings(conditions=("image", "no_image"))
    evaluate_task(OracleModel(), loaded(folder / "data"), folder / "run", settings, gallery_size=1, show_progress=False)
    return folder / "run"


def test_a_run_becomes_the_file_of_rexrank(run: Path, tmp_path: Path) -> None:
    predictions = predictions_from(run)
    assert len(predictions) == 30
    assert empty_in(predictions) == ()
    path = tmp_path / "predictions.json"
    write_json(path, predictions)
    written = json.loads(path.read_text())
    record = written["patient90001_study1"]
    assert record["section_findings"] is None
    assert record["report"].startswith("Findings: None Impression: 1. ")
    assert record["model_prediction"].startswith("Impression: 1. ")
    assert record["image_path"] == ["valid/patient90001/study1/view1_frontal.png"]
    assert record["key_image_path"] == record["image_path"][0]
    assert read_predictions(path, list(written)) == {
        study: record["model_prediction"] for study, record in written.items()
    }


def test_the_literal_none_stands_in_the_reference_of_rexrank_alone(run: Path) -> None:
    assert ground_truth(None, "Normal.") == "Findings: None Impression: Normal."
    assert ground_truth("Clear.", None) == "Findings: Clear. Impression: None"
    references = [ask.question.answers[0] for ask in read_plan(run)]
    assert sum("None" in reference for reference in references) == 0


def test_the_two_tables_of_the_metric_hold_the_same_studies(run: Path, tmp_path: Path) -> None:
    predictions = predictions_from(run)
    write_tables(tmp_path / "gt.csv", tmp_path / "predicted.csv", predictions)
    tables = [list(csv.DictReader((tmp_path / name).open())) for name in ("gt.csv", "predicted.csv")]
    assert [row["study_id"] for row in tables[0]] == [row["study_id"] for row in tables[1]] == list(predictions)
    assert tables[0][1]["report"].startswith("Findings: None Impression:")
    assert read_predictions(tmp_path / "predicted.csv") == {
        study: record["model_prediction"] for study, record in predictions.items()
    }


def test_silence_is_exported_as_empty_and_named(tmp_path: Path) -> None:
    class Silent:
        name = "silent"

        def answer(self, requests: list[Request]) -> list[Response]:
            return [
                Response(text="<think>hm" if r.sample_id.startswith("patient90000") else "Findings: Clear.")
                for r in requests
            ]

    evaluate_task(
        Silent(), loaded(tmp_path / "data"), tmp_path / "run", Settings(conditions=IMAGE_ONLY), gallery_size=1,
        show_progress=False,
    )  # fmt: skip
    predictions = predictions_from(tmp_path / "run")
    assert empty_in(predictions) == ("patient90000_study1",)
    assert predictions["patient90000_study1"]["model_prediction"] == ""
    assert predictions["patient90001_study1"]["model_prediction"] == "Findings: Clear."


def test_an_unfinished_run_is_refused_with_the_number_of_studies(tmp_path: Path) -> None:
    items = loaded(tmp_path / "data").items
    write_plan(tmp_path, make_plan(items, conditions=IMAGE_ONLY))
    asks = read_plan(tmp_path)
    done = [
        {"request_id": ask.request_id, "sample_id": ask.item.sample.sample_id, "text": "x", "finish_reason": "stop"}
        for ask in asks[:27]
    ]
    write_rows(tmp_path / "responses.rank0.jsonl", done)
    first = asks[27].item.sample.study_id
    with pytest.raises(ValueError, match=f"3 of 30 studies were not answered, first {first}"):
        predictions_from(tmp_path)
    done += [{**done[0], "request_id": a.request_id} for a in asks[27:]]
    write_rows(tmp_path / "responses.rank0.jsonl", done)
    with pytest.raises(ValueError, match=r"30 answers.*extractions.jsonl; run medvlm eval extract"):
        predictions_from(tmp_path)


def test_a_run_without_reports_is_refused(tmp_path: Path) -> None:
    from medvlm.eval.tasks.longitudinal import PHANTOMS

    PHANTOMS.example(tmp_path / "data")
    found = load(PHANTOMS, tmp_path / "data", partial=True)
    evaluate_task(
        ConstantModel("A"), found, tmp_path / "run", Settings(conditions=IMAGE_ONLY), gallery_size=1,
        show_progress=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match="asked for no reports"):
        predictions_from(tmp_path / "run")


def test_missing_and_unknown_studies_are_counted_not_left_out(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps({"a": {"model_prediction": "Clear."}, "z": {"model_prediction": ""}}))
    assert read_predictions(path) == {"a": "Clear.", "z": ""}
    with pytest.raises(
        ValueError, match=r"2 of 3 studies are missing, first b; 1 studies are not of the split, first z"
    ):
        read_predictions(path, ["a", "b", "c"])
    with pytest.raises(ValueError, match="1 of 3 studies are missing, first b"):
        read_predictions(path, ["a", "b", "z"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": {"model_prediction": NaN}, "b": {"model_prediction": "x"}}', "1 of 2 studies have no text"),
        ('{"a": {"report": "x"}}', "1 of 1 studies have no text as 'model_prediction', first a"),
        ('{"a": "x", "a": "y"}', "1 keys stand twice, first 'a'"),
        ('["x"]', "expected an object of studies"),
        ("{", "not JSON"),
    ],
)
def test_a_file_that_says_too_little_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_predictions(tmp_path / "p.json")


def test_a_table_with_a_study_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("study_id,report\na,Clear.\na,Effusion.\n")
    with pytest.raises(ValueError, match=r"p.csv:3: study a stands in the table twice"):
        read_predictions(tmp_path / "p.csv")


def test_a_study_file_with_predictions_is_a_predictions_file(tmp_path: Path) -> None:
    """What other people's scripts write: the published records, NaN and all, with one key more."""
    iu_xray.TASK.example(tmp_path)
    records = json.loads((tmp_path / iu_xray.FILE).read_text())
    for study in records:
        records[study] |= {"model_prediction": f"Findings: of {study}", "section_impression": float("nan")}
    (tmp_path / "theirs.json").write_text(json.dumps(records))
    found = load(iu_xray.TASK, tmp_path, partial=True)
    read = read_predictions(tmp_path / "theirs.json", [item.sample.study_id for item in found.items])
    assert read["CXR9003_IM-5003"] == "Findings: of CXR9003_IM-5003"
