"""Trackers beside metrics.jsonl: refused when their package is absent, told numbers and configuration only."""

import importlib.util
from dataclasses import replace

import pytest

from medvlm.train.monitor import Monitor, StepReport, numbers_of
from medvlm.train.trackers import check_trackers, flat, open_trackers

ROW = {
    "stage": "align", "step": 3, "loss": 2.5, "learning_rate": {"projector": 1e-3}, "phases": {"data": 0.1},
    "mfu": None, "scores": {"closed_accuracy": 0.5, "finding_f1": None},
}  # fmt: skip


def test_numbers_of_a_row_are_flat_and_nothing_else():
    assert numbers_of(ROW) == {
        "loss": 2.5, "learning_rate/projector": 1e-3, "phases/data": 0.1, "scores/closed_accuracy": 0.5,
    }  # fmt: skip
    assert flat({"a": {"b": [1, {"c": 2}]}, "d": None}) == {"a.b.0": 1, "a.b.1.c": 2, "d": None}


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed here")
def test_a_missing_package_is_refused_with_the_command():
    with pytest.raises(
        ModuleNotFoundError, match="tracking names wandb, which is not installed; run `pip install wandb`"
    ):
        check_trackers(("wandb",))
    check_trackers(())


def test_a_monitor_tells_each_row_and_closes(tmp_path):
    report = StepReport(
        step=1, loss=2.5, learning_rates={"projector": 1e-3}, grad_norm=0.7, tokens=1000, supervised_tokens=300,
        patches=200, seconds=0.5, data_wait_s=0.1,
    )  # fmt: skip

    class Kept:
        told, closed = [], 0

        def log(self, step, numbers):
            self.told.append((step, numbers))

        def close(self):
            self.closed += 1

    kept = Kept()
    with Monitor(tmp_path, "align", 2, bar=False, trackers=[kept]) as monitor:
        monitor.log(report)
        monitor.log(replace(report, step=2))
    assert [step for step, _ in kept.told] == [1, 2] and kept.closed == 1
    assert kept.told[0][1]["learning_rate/projector"] == 1e-3


def test_event_files_read_back_and_a_resume_replaces_steps(tmp_path):
    pytest.importorskip("tensorboard", reason="bash scripts/test_extras.sh runs these tests")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "stages" / "01-align"
    for start, steps, value in ((0, range(1, 6), 1.0), (3, range(4, 7), 2.0)):
        (tracker,) = open_trackers(
            ("tensorboard",), run="r", stage="align", output=tmp_path, folder=folder, settings={}, start_step=start
        )
        for step in steps:
            tracker.log(step, {"loss": value, "learning_rate/projector": 1e-3})
        tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard" / "01-align"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "learning_rate/projector"}
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(n, 1.0) for n in (1, 2, 3)] + [
        (n, 2.0) for n in (4, 5, 6)
    ]
