"""Intervals cover, widen with clustering, and say when they do not know."""

import numpy as np
import pytest

from medvlm.eval.intervals import clustered, micro_f1, proportion, ratio, wilson


def test_wilson_known_value():
    low, high = wilson(8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert wilson(0, 10)[0] == 0.0 and wilson(10, 10)[1] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least one"):
        wilson(0, 0)


def test_bootstrap_covers_the_truth():
    """Questions of a patient agree with each other; the 95 % interval holds the true rate in about 95 of 100 runs.

    The answers are drawn anew in each run; the draws of the bootstrap, which take the time, are those of five seeds.
    """
    generator = np.random.default_rng(1)
    covered = 0
    for run in range(200):
        rate = np.repeat(generator.beta(6, 4, size=60), 5)
        hits = generator.random(300) < rate
        estimate = proportion(hits.tolist(), [str(i // 5) for i in range(300)], seed=run % 5)
        assert estimate.low is not None and estimate.high is not None
        covered += estimate.low <= 0.6 <= estimate.high
    assert 180 <= covered <= 199


def test_clustering_widens_the_interval():
    hits = ([True] * 10 + [False] * 10) * 10
    alone = proportion(hits, [str(i) for i in range(200)])
    together = proportion(hits, [str(i // 10) for i in range(200)])
    assert alone.method == "wilson" and together.method == "cluster_bootstrap"
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_degenerate_cases_say_so():
    assert proportion([], []).value is None
    one = proportion([1, 0], ["p", "p"])
    assert one.value == 0.5 and one.low is None
    perfect = proportion([True] * 20, [str(i // 2) for i in range(20)])
    assert perfect.method == "wilson_on_clusters" and perfect.low == pytest.approx(wilson(10, 10)[0])
    nothing = clustered(np.zeros((4, 3)), list("abcd"), micro_f1)
    assert nothing.value is None and nothing.method == "none"


def test_ratio_and_f1_by_hand():
    counts = np.array([[1, 0, 1], [2, 1, 0]])
    assert clustered(counts, ["a", "b"], micro_f1).value == pytest.approx(6 / 8)
    assert clustered(np.array([[1.0, 2.0], [1.0, 2.0]]), ["a", "b"], ratio).value == 0.5


def test_seeded():
    hits, patients = [1, 0, 1, 1, 0, 1], list("aabbcc")
    assert proportion(hits, patients, seed=3) == proportion(hits, patients, seed=3)
