"""What holds a training up, told from where the time went."""

from medvlm.train.verdict import sums_of_rows, verdict, verdict_of_rows


def test_the_loader_is_named_with_its_share_and_the_mend():
    said = verdict({"data": 38.0, "compute": 60.0, "optimizer": 2.0})
    assert said == "loader bound: 38% of the time waits for data: raise data.workers or set data.cache: true"


def test_the_phase_that_is_furthest_over_its_share_is_named():
    assert verdict({"data": 12.0, "compute": 40.0, "save": 48.0}).startswith("saving bound: 48%")
    assert verdict({"optimizer": 40.0, "compute": 60.0}).startswith("optimizer bound: 40%")
    assert verdict({"ranks": 30.0, "compute": 70.0}).startswith("held up by other processes: 30%")


def test_a_busy_device_is_compute_bound_and_says_how_well():
    said = verdict({"data": 5.0, "compute": 92.0, "optimizer": 3.0}, mfu=0.412)
    assert said == "compute bound: 92% of the time is forward and backward, MFU 41.2%"
    assert verdict({}) == "nothing was measured"


def test_the_first_step_warms_up_and_does_not_count():
    slow = {"seconds": 50.0, "mfu": 0.01, "phases": {"data": 49.0, "compute": 1.0}}
    steady = {"seconds": 1.0, "mfu": 0.5, "phases": {"data": 0.01, "compute": 0.99}}
    assert verdict_of_rows([slow, steady, steady]).startswith("compute bound: 99%")
    assert verdict_of_rows([slow]).startswith("loader bound")
    # MFU of a stretch is that of its time, not the mean over steps.
    _, mfu = sums_of_rows([slow, steady])
    assert abs(mfu - (0.01 * 50 + 0.5) / 51) < 1e-12
