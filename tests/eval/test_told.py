"""What a run says on the terminal, and which of many metrics a page shows first."""

import json
import re

import pytest

from medvlm.eval import run
from medvlm.eval.main_metrics import FIRST, main_metrics
from medvlm.eval.report_tables import AT_ONCE, beside, tiers
from medvlm.eval.result_tables import as_latex, as_markdown, table_rows
from medvlm.eval.retrieval import run as retrieve
from medvlm.eval.scorers.catalogue import METRICS
from medvlm.eval.tasks.catalogue import task_named
from medvlm.eval.told import lines_of

MAIN = {
    "bc5cdr-disease": "Entities: micro F1",
    "covid-qa": "Spans: exact match",
    "medec-ms": "JSON: fields that are right",
    "chestx-ray14-labels": "Labels: micro F1",
    "m3d-positioning": "Boxes: mean IoU",
    "iu-xray": "Reports: finding F1",
    "vqa-rad": "Closed questions: accuracy",
    "medxpertqa-mm": "Multiple choice: accuracy",
}
"""A task of every kind of question, and the figure of it that a person looks for."""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """(what was printed by task, metrics by task) of the oracle on made-up examples."""
    root = tmp_path_factory.mktemp("told")
    for name in MAIN:
        folder = root / "data" / task_named(name).folder
        folder.mkdir(parents=True)
        task_named(name).example(folder)
    arguments = ["--model", "oracle", "--root", str(root / "data"), "--partial", "--task", *MAIN, "--gallery", "0"]
    assert run.main([*arguments, "--conditions", "image", "no_image", "--out", str(root / "out")]) == 0
    labels = {name: task_named(name).label for name in MAIN}
    metrics = {n: json.loads((root / "out" / of / "metrics.json").read_text("utf-8")) for n, of in labels.items()}
    return {n: "\n".join(lines_of(root / "out" / of, metrics[n])) for n, of in labels.items()}, metrics


@pytest.mark.parametrize("name", MAIN)
def test_every_kind_of_question_has_its_figure_with_interval_and_n(told, name):
    printed, metrics = told[0][name], told[1][name]
    n = next(r["n"] for r in metrics["table"] if (r["condition"], r["dimension"]) == ("image", "all"))
    found = re.search(rf"^{MAIN[name]} +100\.0 %  (\S+) to 100\.0 +(\d+) +\d+ +0$", printed, re.M)
    assert found and 0 < float(found[1]) < 100 and int(found[2]) <= n
    assert "not the published split" in printed and "report.html" in printed
    text_only = name in ("bc5cdr-disease", "covid-qa", "medec-ms")
    assert ("asked with its image" in printed, "  without an image" in printed) == (not text_only, not text_only)


def test_controls_and_the_best_constant_stand_below_an_accuracy(told):
    lines = told[0]["vqa-rad"].splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("Closed questions: accuracy"))
    assert [line.split("  ")[1] for line in lines[place + 1 : place + 3]] == [
        "without an image",
        "best constant answer",
    ]


def test_a_gap_to_published_figures_is_said_in_words(told, tmp_path):
    metrics = json.loads(json.dumps(told[1]["vqa-rad"]))
    assert "beside published figures: not comparable, not the published split" in told[0]["vqa-rad"]
    row = next(r for r in metrics["table"] if (r["metric"], r["dimension"]) == ("strict_accuracy", "all"))
    row |= {"value": 0.6, "low": 0.55, "high": 0.66}
    figure = {"metric": "strict_accuracy", "model": "M", "source": "s", "how": "h"}
    cases = (
        (0.65, True, "5.0 points below it, which is within our interval"),
        (0.5, False, "10.0 points above it, which is outside of our interval"),
    )
    for value, inside, words in cases:
        metrics["run"] |= {"differs": "", "published": [figure | {"value": value}]}
        figures = [figure | {"value": value, "contains": inside}]
        metrics["gap_to_published"] = {"comparable": True, "why_not": "", "figures": figures}
        said = f"strict accuracy of M is published as {100 * value:.1f}: here 60.0, {words}"
        assert said in "\n".join(lines_of(tmp_path, metrics))


def test_a_part_and_missing_answers_are_said(told, tmp_path):
    metrics = json.loads(json.dumps(told[1]["vqa-rad"]))
    metrics["run"] |= {"limit": 3, "unanswered": 2, "requests": 9}
    printed = "\n".join(lines_of(tmp_path, metrics))
    assert "at most 3 samples" in printed and "2 of 9 requests have no answer" in printed


def test_many_metrics_are_folded_and_few_are_not(told):
    assert set(METRICS) >= FIRST
    table = told[1]["iu-xray"]["table"]
    for tier in tiers(table)[:2]:
        assert 0 < len(tier["rows"]) <= 14 and tier["more"]
        assert not {row["metric"] for row in tier["rows"]} & {row["metric"] for row in tier["more"]}
    rows = beside(table)
    assert rows["rows"] and rows["more"]
    shown = {row["metric"] for tier in tiers(table) for row in tier["rows"] + tier["more"]}
    assert shown == {row["metric"] for row in table if row["condition"] == "image"}  # folded, never dropped
    few = tiers(told[1]["vqa-rad"]["table"])[0]
    assert not few["more"] and len(few["rows"]) <= AT_ONCE


def test_groups_and_patients_know_sets_of_mentions(told):
    assert [metric.name for _, metric in main_metrics(["span"])] == ["span_exact", "entity_micro_f1"]
    assert "entity_micro_f1" in told[1]["bc5cdr-disease"]["patient_level"]["mean"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "none.jsonl"], "--data none.jsonl is no file; give a manifest"),
        (["--task", "vqa-rad", "vqa-rad=elsewhere"], "--task names vqa-rad 2 times"),
        (
            ["--task", "vqa-rad", "--model", "http://localhost:1/v1"],
            "--model 'endpoint:http://localhost:1/v1#MODEL_ID'",
        ),
        (["--task", "vqa-rad", "--out", __file__], "is a file; give a folder"),
        (["--task", "vqa-rad=nowhere"], "download https://osf.io/89kps"),
    ],
)
def test_what_cannot_be_done_is_refused_with_2_in_words(arguments, said, told, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task_named("vqa-rad").example(tmp_path)
    given = ["--model", "oracle", "--root", str(tmp_path), "--partial", "--out", str(tmp_path / "out"), *arguments]
    assert run.main(given) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and said in printed


@pytest.mark.parametrize("option", ["--limit", "--control-limit", "--max-new-tokens", "--batch-size", "--gallery"])
def test_a_negative_number_is_no_limit(option, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run.main(["--model", "oracle", "--task", "vqa-rad", "--out", str(tmp_path), option, "-4"])
    assert ended.value.code == 2 and "no whole number of at least" in capsys.readouterr().err


def test_tables_for_papers_say_that_a_part_was_asked(told):
    metrics = told[1]["vqa-rad"]
    whole = json.loads(json.dumps(metrics))
    whole["run"] |= {"differs": "", "model": "other"}
    assert {row["part"] for row in table_rows([metrics])} == {"not the published split"}
    printed = as_markdown([metrics, whole])
    of_one = [line for line in printed.splitlines() if "strict accuracy" in line]
    assert [line.count("not asked") for line in of_one] == [1, 1]  # a part and the whole never share a line
    assert "vqa-rad@1 (not the published split)" in of_one[0] and "| vqa-rad@1 |" in of_one[1]
    few = json.loads(json.dumps(whole))
    few["run"]["limit"] = 5
    assert "vqa-rad@1 (limit 5)" in as_latex([few])


def test_a_misspelt_task_is_answered_with_its_neighbours():
    with pytest.raises(
        ValueError, match=r"no task 'vqa_rad'; is it vqa-rad.*medvlm eval list names the \d+"
    ) as refused:
        task_named("vqa_rad")
    assert len(str(refused.value)) < 200


def test_retrieval_of_an_absent_manifest_is_refused(tmp_path, capsys):
    given = ["--data", str(tmp_path / "none.jsonl"), "--model", "embeddings:none", "--out", str(tmp_path / "out")]
    assert retrieve.main(given) == 2
    assert "none.jsonl is no file; give a manifest" in capsys.readouterr().err and not (tmp_path / "out").exists()
