"""The self-test of every task, and that it sees scorers which are wrong in the ways that published ones were."""

from dataclasses import replace

import pytest

from medvlm.eval import extract, selftest
from medvlm.eval.scorers import choice
from medvlm.eval.task import load
from medvlm.eval.tasks.catalogue import TASKS


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_the_ruler_is_straight(task, tmp_path):
    checks = selftest.selftest([task], tmp_path, show_progress=False)
    assert len(checks) == 5
    assert [f"{check.name}: {check.faults}" for check in checks if check.faults] == []


def checks_of(name: str, folder) -> dict[str, tuple[str, ...]]:
    folder.mkdir()
    TASKS[name].example(folder)
    found = load(TASKS[name], folder, partial=True)
    return {check.name: check.faults for check in selftest.check_task(found, folder / "runs")}


def test_a_scorer_that_reads_empty_as_the_first_choice_is_seen(tmp_path, monkeypatch):
    real = extract.extract

    def nearest(question, text, prompt="", box_form="box"):
        read = real(question, text, prompt, box_form)
        if read.value is None and question.kind in ("closed", "choice"):
            return replace(read, value=extract.options(question, prompt)[0], rule="nearest")
        return read

    monkeypatch.setattr(extract, "extract", nearest)
    assert checks_of("vqa-rad", tmp_path / "x")["empty"]


def test_a_scorer_that_counts_twice_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "_right", lambda row: [2.0 * row["correct"], 1.0])
    monkeypatch.setattr(choice, "is_correct", lambda question, value, prompt="": value is not None)
    faults = checks_of("vqa-rad", tmp_path / "x")
    assert faults["constant"] == () and not faults["oracle"]  # the mark itself is looked at by the checks below
    monkeypatch.setattr(selftest, "is_correct", lambda question, value, prompt="": value is not None)
    faults = checks_of("vqa-rad", tmp_path / "y")
    assert faults["constant"] and faults["shuffled"]


def test_the_command_fails_when_a_check_does(monkeypatch, capsys):
    assert selftest.main(["--task", "vqa-rad"]) == 0
    assert "0 wrong" in capsys.readouterr().out
    monkeypatch.setattr(selftest, "misread", lambda: ["'x' was read as 'y'"])
    assert selftest.main(["--task", "vqa-rad"]) == 1
    assert "was read as" in capsys.readouterr().out
    assert selftest.main(["--task", "vqa-red"]) == 2
