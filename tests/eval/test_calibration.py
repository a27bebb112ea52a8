"""Calibration error as torchmetrics computes it, and what abstaining is worth, by hand."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from score_rows import score_row

from medvlm.eval.abstention import abstention, risk_coverage
from medvlm.eval.calibration import calibration, calibration_error, equal_mass_bins, equal_width_bins, reliability
from medvlm.eval.table import clusters_of

SAID = np.array([0.95, 0.85, 0.75, 0.65, 0.55, 0.45])
RIGHT = np.array([1.0, 1, 0, 1, 0, 0])
# values on edges, and exactly 0 and 1
ON_EDGES = np.array(
    [0.0, 0.02, 0.1, 0.2, 0.2, 0.25, 0.31, 0.4, 0.47, 0.5, 0.53, 0.6, 0.6, 0.69, 0.7, 0.75, 0.8, 0.88, 0.9, 0.93, 0.97]
    + [1.0] * 3
)  # fmt: skip
EDGES_RIGHT = np.array([0.0, 0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1])


@pytest.mark.parametrize(("bins", "value"), [(5, 0.266667), (10, 0.383333), (15, 0.383333)])
def test_golden_values(bins, value):
    assert calibration_error(SAID, RIGHT, equal_width_bins(SAID, bins)) == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize(("bins", "value"), [(5, 0.1316667), (10, 0.1783333), (15, 0.2808333), (20, 0.3058333)])
def test_values_on_edges_fall_where_torchmetrics_1_9_puts_them(bins, value):
    found = calibration_error(ON_EDGES, EDGES_RIGHT, equal_width_bins(ON_EDGES, bins))
    assert found == pytest.approx(value, abs=1e-6)


def test_adaptive_bins_hold_as_many_each():
    said = np.random.default_rng(0).beta(20, 1, size=1500)
    sizes = np.bincount(equal_mass_bins(said))
    assert len(sizes) == 15 and sizes.min() >= 99 and sizes.max() <= 101
    assert np.bincount(equal_width_bins(said)).max() > 700  # equal widths put half of them into one bin
    same = np.full(40, 0.7)
    assert set(equal_mass_bins(same)) == {0}
    assert calibration_error(same, np.arange(40) % 2, equal_mass_bins(same)) == pytest.approx(0.2)


def test_a_confidence_is_a_probability():
    with pytest.raises(ValueError, match=r"from 0 to 1, got 1\.2"):
        equal_width_bins(np.array([0.3, 1.2]))
    with pytest.raises(ValueError, match=r"got nan"):
        equal_mass_bins(np.array([0.3, np.nan]))


def rows_with(confidences, rights):
    return [
        score_row(f"q{place}", f"p{place // 2}", bool(right), confidence=float(said))
        for place, (said, right) in enumerate(zip(confidences, rights, strict=True))
    ]


def test_the_section():
    generator = np.random.default_rng(1)
    said = generator.beta(4, 2, size=1200)
    honest = rows_with(said, generator.random(1200) < said)
    boasting = rows_with(np.sqrt(said), generator.random(1200) < said)
    silent = [score_row("silent", "p0", True)]
    clusters = clusters_of(honest, "patient")
    good, bad = calibration([*honest, *silent], clusters), calibration(boasting, clusters)
    assert good is not None and bad is not None
    assert (good["n"], good["without_confidence"]) == (1200, 1)
    # what a calibrated model would show by chance tells the two apart
    assert good["ece"] < good["ece_if_calibrated"]["p95"] and bad["ece"] > 2 * bad["ece_if_calibrated"]["p95"]
    assert bad["confidence"] - bad["accuracy"] == pytest.approx(bad["ece"], abs=0.01)
    expected = np.mean((said - np.array([row["correct"] for row in honest])) ** 2)
    assert good["brier"]["value"] == pytest.approx(expected) and good["brier"]["low"] < expected < good["brier"]["high"]
    assert sum(row["n"] for row in good["reliability"]) == 1200
    assert calibration(silent, clusters_of(silent, "patient")) is None


def test_the_table_of_the_plot():
    first, *_, last = reliability(SAID, RIGHT, equal_width_bins(SAID, 5), 5)
    assert (first["from"], first["to"], first["n"], first["accuracy"]) == (0.4, pytest.approx(0.6), 2, 0.0)
    assert (last["confidence"], last["accuracy"]) == (pytest.approx(0.9), 1.0) and last["low"] < 1 == last["high"]


def test_risk_and_coverage_by_hand():
    found = risk_coverage([0.6, 0.9, 0.7, 0.8], [True, True, False, True])
    assert found["aurc"] == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)
    assert found["aurc_best"] == pytest.approx(1 / 16) and found["aurc_random"] == 0.25
    assert [point["coverage"] for point in found["points"]] == [0.25, 0.5, 0.75, 1.0]
    assert found["points"][2] == {"coverage": 0.75, "risk": pytest.approx(1 / 3), "confidence": 0.7}
    with pytest.raises(ValueError, match="give one each"):
        risk_coverage([0.5], [])


def test_equal_confidences_have_no_order():
    said, right = [0.9, 0.5, 0.5, 0.5, 0.2], [True, False, True, True, False]
    orders = [[0, *middle, 4] for middle in itertools.permutations([1, 2, 3])]
    risks = [np.mean([np.mean([not right[i] for i in order[: k + 1]]) for k in range(5)]) for order in orders]
    assert risk_coverage(said, right)["aurc"] == pytest.approx(np.mean(risks))
    assert risk_coverage(said, right)["aurc"] == risk_coverage(said[::-1], right[::-1])["aurc"]


def test_abstention_by_hand():
    def rows(condition: str, refused: int, **more):
        return [
            score_row(
                f"q{place}", f"p{place}", place < 12, condition=condition,
                rule="refused" if place >= 20 - refused else "exact", confidence=1 - place / 100, **more,
            )
            for place in range(20)
        ]  # fmt: skip

    marked = [
        score_row(f"u{i}", f"p{i}", False, unanswerable=True, rule="refused" if i < 3 else "exact") for i in range(4)
    ]
    scores = [*rows("image", 2), *rows("no_image", 15), *marked]
    found = abstention(scores, clusters_of(scores, "patient"))
    assert found is not None
    assert found["conditions"]["image"]["n"] == 24 and found["conditions"]["image"]["refused"] == 5
    assert found["conditions"]["no_image"]["coverage"]["value"] == 0.25
    # 18 + 1 answered, of which 12 are right
    assert found["conditions"]["image"]["selective_accuracy"]["value"] == pytest.approx(12 / 19)
    assert (found["unanswerable"]["n"], found["unanswerable"]["refused"]) == (24, 18)
    assert found["answerable"]["share"]["value"] == pytest.approx(2 / 20)
    curve = found["risk_coverage"]
    assert (curve["n"], curve["without_confidence_or_refused"]) == (18, 6) and curve["points"][-1][
        "risk"
    ] == pytest.approx(1 / 3)
    assert (
        abstention([score_row("r", "p", False, kind="report")], clusters_of([score_row("r", "p", False)], "patient"))
        is None
    )
