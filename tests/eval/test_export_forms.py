"""Runs in the forms of others are read by their own libraries, where these are installed."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from evaluation_fixtures import samples_of, write_manifest, write_visuals

from medvlm.eval.export import export, main, metrics_of
from medvlm.eval.models import ConstantModel
from medvlm.eval.run import Settings, evaluate


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    write_visuals(folder, 4)
    manifest = write_manifest(folder / "m.jsonl", [s for p in range(4) for s in samples_of(p, ("image",))])
    settings = Settings(conditions=("image", "no_image"))
    evaluate(ConstantModel("yes & <no>_100 %"), [manifest], folder / "run", settings, gallery_size=1)
    return folder / "run"


def test_csv_holds_every_number(run, tmp_path):
    assert main([str(run), "--to", "csv", "--out", str(tmp_path / "t.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    table = [row for row in metrics_of(run)["table"] if row["dimension"] == row["topic"] == "all"]
    assert [(row["condition"], row["metric"]) for row in rows] == [(row["condition"], row["metric"]) for row in table]
    assert [row["value"] for row in rows] == ["" if row["value"] is None else str(row["value"]) for row in table]


def test_markdown_and_latex_are_one_line_per_metric(run, tmp_path):
    for form in ("markdown", "latex"):
        assert main([str(run), str(run), "--to", form, "--out", str(tmp_path / form)]) == 0
    markdown = (tmp_path / "markdown").read_text(encoding="utf-8").splitlines()
    assert len({line.count(" | ") for line in markdown}) == 1 and markdown[0].startswith(
        "| task | metric | n | constant:yes"
    )
    assert any("closed questions: accuracy (%) ↑" in line.lower() for line in markdown)
    latex = (tmp_path / "latex").read_text(encoding="utf-8")
    assert r"constant:yes \& <no>\_100 \%" in latex and latex.count(r"\begin{tabular}") == 1
    body = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert len({line.replace(r"\&", "").count("&") for line in body}) == 1 and "% tier B (clinical, by rules)" in latex


def test_lm_eval_results(run, tmp_path):
    results, samples = export(run, "lm-eval", tmp_path / "lm")
    found = json.loads(results.read_text())
    row = found["results"]["own-questions"]
    assert row["closed_accuracy,medvlm"] == metrics_of(run)["headline"]["closed_accuracy_2d"]
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    assert [line["doc_id"] for line in lines] == list(range(20)) and {"target", "resps", "filtered_resps"} <= set(
        lines[0]
    )


def test_lm_eval_shows_our_results(run, tmp_path):
    lm_eval = pytest.importorskip("lm_eval.utils", reason="lm-eval is not installed: pip install 'medvlm[oracles]'")
    results, _ = export(run, "lm-eval", tmp_path / "lm")
    table = lm_eval.make_table(json.loads(results.read_text()))
    assert "closed_accuracy" in table and "medvlm" in table


def test_inspect_log_says_what_the_run_says(run, tmp_path):
    (path,) = export(run, "inspect", tmp_path / "inspect")
    log = json.loads(path.read_text(encoding="utf-8"))
    assert log["status"] == "success" and len(log["samples"]) == 20
    accuracy = next(score for score in log["results"]["scores"] if score["name"] == "closed_accuracy")
    assert accuracy["metrics"]["mean"]["value"] == metrics_of(run)["headline"]["closed_accuracy_2d"]
    assert export(run, "inspect", tmp_path / "again")[0].read_bytes() == path.read_bytes()


def test_inspect_reads_our_log(run, tmp_path):
    inspect_log = pytest.importorskip(
        "inspect_ai.log", reason="inspect_ai is not installed: pip install 'medvlm[oracles]'"
    )
    (path,) = export(run, "inspect", tmp_path / "inspect")
    log = inspect_log.read_eval_log(str(path))
    assert log.status == "success" and log.results.completed_samples == 20
    assert log.samples[0].scores["medvlm"].explanation.startswith("read by rule")
    assert log.samples[0].output.completion == "yes & <no>_100 %"
    listed = subprocess.run(
        [sys.executable, "-m", "inspect_ai", "log", "list", "--log-dir", str(path.parent)],
        capture_output=True,
        text=True,
    )
    assert path.name in listed.stdout


def test_what_has_no_such_form_is_refused(tmp_path, capsys):
    assert main([str(tmp_path), "--to", "csv", "--out", str(tmp_path / "x.csv")]) == 2
    assert "has no metrics.json" in capsys.readouterr().err


def test_rexrank_predictions_hold_the_reports(run, tmp_path):
    (path,) = export(run, "rexrank", tmp_path / "r")
    predicted = json.loads(path.read_text(encoding="utf-8"))
    assert len(predicted) == 4 and all(row["model_prediction"] for row in predicted.values())
