"""metrics.jsonl and what is shown."""

import json
import math
from dataclasses import replace

import pytest

from medvlm.train.monitor import METRICS, Monitor, StepReport


def report(step, **more):
    base = StepReport(
        step=step,
        loss=2.5,
        learning_rates={"projector": 1e-3},
        grad_norm=0.7,
        tokens=1000,
        supervised_tokens=300,
        patches=200,
        seconds=0.5,
        data_wait_s=0.1,
    )
    return replace(base, **more)


def rows(folder):
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def test_each_step_is_a_row(tmp_path):
    with Monitor(tmp_path, "align", 2, bar=False) as monitor:
        monitor.log(report(1, metrics={"accuracy": 0.5}))
        monitor.log(report(2, loss=math.nan))
    first, second = rows(tmp_path)
    assert first == {
        "stage": "align", "step": 1, "loss": 2.5, "learning_rate": {"projector": 1e-3}, "grad_norm": 0.7,
        "tokens_per_s": 2000.0, "patches_per_s": 400.0, "tokens": 1000, "supervised_tokens": 300,
        "visual_tokens": 0, "visual_tokens_made": 0, "seconds": 0.5, "data_wait_s": 0.1, "accuracy": 0.5,
        "padding": None, "mfu": None, "hfu": None, "memory_gib": None, "phases": {},
    }  # fmt: skip
    assert second["loss"] is None


def test_a_resumed_stage_has_every_step_once(tmp_path):
    with Monitor(tmp_path, "align", 2, bar=False) as monitor:
        monitor.log(report(1))
    with Monitor(tmp_path, "tune", 9, bar=False) as monitor:
        for step in (1, 2, 3):
            monitor.log(report(step, loss=1.0))
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"stage": "tune", "st')  # killed here
    with Monitor(tmp_path, "tune", 9, start_step=2, bar=False) as monitor:
        monitor.log(report(3, loss=3.0))
    assert [(row["stage"], row["step"], row["loss"]) for row in rows(tmp_path)] == [
        ("align", 1, 2.5),
        ("tune", 1, 1.0),
        ("tune", 2, 1.0),
        ("tune", 3, 3.0),
    ]


def test_a_broken_row_inside_is_not_passed_over(tmp_path):
    (tmp_path / METRICS).write_text("nonsense\n{}\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl:1: not JSON"), Monitor(tmp_path, "align", 2, bar=False):
        pass


def test_without_a_terminal_some_steps_are_lines(tmp_path, capsys):
    with Monitor(tmp_path, "align", 25, every=10, bar=False) as monitor:
        for step in range(1, 26):
            monitor.log(report(step))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" loss")[0] for line in lines] == [f"[align] step {n}/25" for n in (1, 10, 20, 25)]
    assert "2,000 tokens/s | data wait 20% | grad norm 0.7" in lines[1] and lines[1].endswith("| 0:00:08 left")


def test_other_ranks_are_silent_and_the_bar_writes_the_same_rows(tmp_path, capsys):
    with Monitor(tmp_path / "one", "align", 2, rank=1) as monitor:
        monitor.log(report(1))
    assert not (tmp_path / "one").exists()
    with Monitor(tmp_path / "bar", "align", 2, bar=True) as monitor:
        monitor.log(report(1))
        monitor.log(report(2))
    assert [row["step"] for row in rows(tmp_path / "bar")] == [1, 2]
    assert "loss 2.5000" in capsys.readouterr().err.replace("\n", " ")


def test_logging_outside_of_the_block_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="outside of its with block"):
        Monitor(tmp_path, "align", 2).log(report(1))


def test_the_keep_rate_is_said_when_tokens_are_dropped(tmp_path, capsys):
    with Monitor(tmp_path, "align", 2, bar=False) as monitor:
        monitor.log(report(1, visual_tokens=90, visual_tokens_made=90))
        monitor.log(report(2, visual_tokens=45, visual_tokens_made=90))
    first, second = capsys.readouterr().err.splitlines()
    assert "visual tokens" not in first and "50% of visual tokens kept" in second
    assert [row["visual_tokens"] for row in rows(tmp_path)] == [90, 45]
