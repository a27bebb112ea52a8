"""The DPO benchmark judges what it was told; that both contenders train the same is tested where TRL is installed."""

import argparse
import copy

import pytest

from medvlm.scripts.bench import dpo
from medvlm.scripts.bench.dpo_checkpoint import write_checkpoint, write_pairs


def runs(ours: float, memory: float) -> dpo.Runs:
    def report(rate: float, peak: float) -> dict:
        return {"pairs_per_second": rate, "cpu_seconds_per_pair": 1 / rate, "peak_mib": peak, "losses": [0.69, 0.6]}

    return {
        setting: {
            "medvlm": [report(ours * factor, memory) for factor in (0.5, 1.0, 9.0)],
            "TRL": [report(1.0, 1000.0) for _ in range(3)],
        }
        for setting in dpo.SETTINGS
    }


@pytest.mark.parametrize(("ours", "memory", "met"), [(1.8, 590, True), (1.6, 590, False), (1.8, 610, False)])
def test_goals_are_judged_by_medians(ours, memory, met):
    for found in dpo.judged(runs(ours, memory)).values():
        assert found["met"] is met
        assert found["ratios"] == {"pairs_per_second": ours, "peak_mib": memory / 1000}


def test_losses_that_differ_are_seen():
    table = runs(2.0, 500)
    assert dpo.largest_difference(table) == 0
    table = copy.deepcopy(table)
    table["activations kept"]["TRL"][1]["losses"][1] = 0.63
    assert dpo.largest_difference(table) == pytest.approx(0.05)


@pytest.mark.slow
def test_both_contenders_train_the_same(tmp_path):
    for package in ("trl", "datasets"):
        pytest.importorskip(package, reason="bash scripts/test_extras.sh runs these tests")
    write_checkpoint(tmp_path / "start")
    write_pairs(tmp_path, 3)
    options = argparse.Namespace(steps=3, pairs=1, device="cpu")
    found = {name: [dpo.one_process(name, tmp_path, options, True)] for name in ("medvlm", "TRL")}
    assert dpo.largest_difference({"activations kept": found}) < 1e-4
    assert all(one["peak_mib"] > 0 and len(one["losses"]) == 3 for (one,) in found.values())
