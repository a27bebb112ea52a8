"""The 95 % interval holds the true value in 93 to 97 of 100 repetitions, also where answers about a patient agree."""

import numpy as np
import pytest

from medvlm.eval.bca import bca_bounds
from medvlm.eval.intervals import Statistic, clustered, micro_f1, proportion, ratio, wilson
from medvlm.eval.paired import compare_counts
from medvlm.eval.resampling import cluster_sums, resampled

REPETITIONS = 1000


def draw_answers(patients: int, accuracy: float, agreement: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(right answers, questions) of each patient in each repetition, (R, P) both: 1 to 10 questions a patient, whose
    answers are beta-binomial with the intraclass correlation ``agreement``."""
    generator = np.random.default_rng(seed)
    asked = generator.integers(1, 11, size=(REPETITIONS, patients))
    rate = np.full(asked.shape, accuracy)
    if agreement:
        spread = 1 / agreement - 1
        rate = generator.beta(accuracy * spread, (1 - accuracy) * spread, size=asked.shape)
    return generator.binomial(asked, rate), asked


def intervals(columns: tuple[np.ndarray, ...], statistic: Statistic) -> tuple[np.ndarray, np.ndarray]:
    """The bounds of each repetition, by the functions that ``clustered`` calls, all repetitions at once.

    Args:
        columns: K arrays (R, P) of counts.
    """
    counts = np.stack(columns, axis=-1).astype(float)  # (R, P, K)
    repetitions, patients, width = counts.shape
    drawn = resampled(counts.transpose(1, 0, 2).reshape(patients, -1), seed=0)

    def value(sums: np.ndarray) -> np.ndarray:
        return statistic(sums.reshape(-1, width)).reshape(-1, repetitions)

    total = counts.sum(axis=1, keepdims=True)
    left_out = value((total - counts).transpose(1, 0, 2).reshape(patients, -1))
    return bca_bounds(value(drawn), value(total.reshape(1, -1))[0], left_out)


def covered(low: np.ndarray, high: np.ndarray, truth: float) -> float:
    return float(np.mean((low <= truth) & (truth <= high)))


@pytest.mark.parametrize(
    ("patients", "accuracy", "agreement"),
    [(60, 0.5, 0.1), (60, 0.7, 0.4), (60, 0.9, 0.1), (100, 0.8, 0.8), (200, 0.9, 0.4), (120, 0.9, 0.0)],
)
def test_an_accuracy_is_covered(patients, accuracy, agreement):
    right, asked = draw_answers(patients, accuracy, agreement, seed=patients)
    assert 0.93 <= covered(*intervals((right, asked), ratio), accuracy) <= 0.97
    naive = [wilson(*pair) for pair in zip(right.sum(axis=1), asked.sum(axis=1), strict=True)]
    share = covered(*np.array(naive).T, accuracy)
    # the same test fails an interval that takes the answers for independent, as soon as they are not
    assert share < 0.92 if agreement else 0.93 <= share <= 0.97


def test_the_naive_interval_is_far_off_where_patients_decide():
    right, asked = draw_answers(100, 0.8, 0.8, seed=1)
    naive = [wilson(*pair) for pair in zip(right.sum(axis=1), asked.sum(axis=1), strict=True)]
    assert covered(*np.array(naive).T, 0.8) < 0.7


def test_a_micro_f1_is_covered():
    generator = np.random.default_rng(5)
    shape = (REPETITIONS, 80)
    there = generator.poisson(2.5 * generator.integers(1, 4, size=shape))
    found = generator.binomial(there, generator.beta(3, 2, size=shape))  # how well a patient's reports are written
    invented = generator.poisson(0.5 * generator.gamma(2, 0.5, size=shape))
    truth = 2 * 3.0 / (2 * 3.0 + 0.5 + 2.0)  # of 5 findings a patient 3 are hit and 2 missed; 0.5 are invented
    assert 0.93 <= covered(*intervals((found, invented, there - found), micro_f1), truth) <= 0.97


def test_the_single_interval_is_the_one_simulated():
    right, asked = draw_answers(60, 0.7, 0.4, seed=3)
    low, high = intervals((right, asked), ratio)
    for place in range(3):
        patients = np.repeat(np.arange(60), asked[place])
        hits = np.concatenate([np.arange(n) < k for k, n in zip(right[place], asked[place], strict=True)])
        one = proportion(hits, patients)
        assert (one.low, one.high) == (pytest.approx(low[place], abs=1e-12), pytest.approx(high[place], abs=1e-12))
        assert one.method == "cluster_bootstrap"


def test_scipy_agrees():
    stats = pytest.importorskip("scipy.stats")
    right, asked = draw_answers(80, 0.75, 0.3, seed=9)
    result = stats.bootstrap(
        (right[0].astype(float), asked[0].astype(float)),
        lambda hits, n, axis=-1: hits.sum(axis=axis) / n.sum(axis=axis),
        paired=True, n_resamples=4000, method="BCa", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    ours = clustered(np.stack([right[0], asked[0]], axis=1), np.arange(80))
    assert ours.low == pytest.approx(result.low, abs=0.01) and ours.high == pytest.approx(result.high, abs=0.01)


def test_rare_errors_and_few_patients_are_told():
    hits, patients = np.ones(300), np.repeat(np.arange(60), 5)
    hits[:8] = 0  # all wrong answers are of two patients
    rare = proportion(hits, patients)
    plain = clustered(np.stack([hits, np.ones(300)], axis=1), patients)
    assert rare.method == "cluster_bootstrap_rare" and rare.low < plain.low and rare.high >= plain.high
    few = proportion([1, 0, 1, 1, 0, 1, 0, 1] * 2, [str(place // 2) for place in range(16)])
    assert few.method == "cluster_bootstrap_few"


def test_counts_of_others_and_threads_change_nothing():
    generator = np.random.default_rng(0)
    sums = cluster_sums(np.stack([generator.random(5000), np.ones(5000)], axis=1), generator.integers(0, 1500, 5000))
    alone = resampled(sums, seed=4)
    beside = resampled(np.concatenate([sums, sums[:, ::-1]], axis=1), seed=4)
    assert np.array_equal(alone, beside[:, :2])
    assert np.array_equal(resampled(sums[:700], seed=4, resamples=300), resampled(sums[:700], seed=4)[:300])
    whole = np.round(sums)
    weights = resampled(np.eye(40), seed=4)
    assert np.array_equal(resampled(whole[:40], seed=4), weights @ whole[:40])
    assert weights.mean() == pytest.approx(1, abs=0.01) and weights.var() == pytest.approx(1, abs=0.03)


def test_the_paired_test_keeps_its_level_where_mcnemar_does_not():
    """Two models that are equally good, each better on other patients: no difference is the truth."""
    generator = np.random.default_rng(2)
    rejected = np.zeros(3)
    for _ in range(800):
        patients = np.repeat(np.arange(50), generator.integers(1, 11, size=50))
        rates = np.clip(generator.beta(2, 1, size=50)[None] + generator.normal(0, 0.25, size=(2, 50)), 0, 1)
        a, b = ((generator.random(len(patients)) < rate[patients]).astype(float) for rate in rates)
        ones = np.ones_like(a)
        found = compare_counts(np.stack([a, ones], 1), np.stack([b, ones], 1), patients, share=True, draws=399)
        rejected += (found.p < 0.05, found.p_mcnemar < 0.05, not found.low <= 0 <= found.high)
    randomised, naive, interval = rejected / 800
    assert 0.03 < randomised < 0.07 and 0.03 < interval < 0.08
    assert naive > 0.13
