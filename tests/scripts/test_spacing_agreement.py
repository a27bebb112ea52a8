"""The experiment on spacing: its scans are of one ball, and its figures are what they are called."""

import numpy as np

from medvlm.scripts.bench.spacing_agreement import (
    LESION_HU,
    LUNG_HU,
    SIZES_MM,
    Ball,
    as_seen,
    measure,
    scan,
    table,
    training_scan,
)


def test_scans_of_one_ball_hold_the_same_volume_of_lesion():
    ball = Ball(size_mm=20, centre_mm=(18.0, 22.0, 20.0), field_mm=40.0)
    truth = 4 / 3 * np.pi * 10**3
    for voxels in (16, 24, 40):
        volume = scan(ball, voxels, np.random.default_rng(0))
        step = 40.0 / voxels
        assert volume.spacing_mm == (step, step, step)
        filled = (volume.voxels - LUNG_HU).sum() / (LESION_HU - LUNG_HU) * step**3
        assert abs(filled / truth - 1) < 0.06


def test_training_scans_do_not_give_the_size_away():
    rng = np.random.default_rng(0)
    scans = [training_scan(rng) for _ in range(200)]
    assert {size for _, size in scans} == set(SIZES_MM)
    spacings, sizes = [v.spacing_mm[0] for v, _ in scans], [size for _, size in scans]
    assert min(spacings) < 0.8 and max(spacings) > 2.5
    in_voxels = np.array(sizes) / np.array(spacings)
    assert np.corrcoef(in_voxels, sizes)[0, 1] < 0.7
    assert as_seen(scans[0][0], "index").spacing_mm is None and as_seen(scans[0][0], "millimetres").spacing_mm


def test_the_figures_of_answers_that_are_known():
    said = np.array([[10.0, 10, 10], [20, 15, 25], [np.nan, 5, 5]])
    row = measure(said, np.array([10.0, 20, 5]))
    assert (row["balls"], row["no_size"]) == (3, 1)
    assert row["mean_spread_mm"] == 5.0 and row["share_equal"] == 0.5
    assert row["mean_absolute_error_mm"] == 10 / 6 and row["mean_error_mm"] == [0.0, -2.5, 2.5]
    assert "| index | 5.00 | 50% |" in table({"index": row})
    nothing = measure(np.full((2, 3), np.nan), np.array([5.0, 10.0]))
    assert nothing["no_size"] == 2 and np.isnan(nothing["share_equal"])
