"""Whether a model is right as often as it says: calibration error, Brier score, and the table of a reliability plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from medvlm.eval.intervals import clustered, wilson
from medvlm.eval.rows import Row
from medvlm.eval.table import Clusters

BINS = 15
"""Of equal width: the default of torchmetrics, and of Guo et al. 2017."""

_REPEATS = 1000


def equal_width_bins(confidence: np.ndarray, bins: int = BINS) -> np.ndarray:
    """The bin of each confidence, as torchmetrics (1.9) cuts them: a bin holds its lower edge and not its upper one.

    A confidence of exactly 1 so stands in a bin of its own, number ``bins``.
    """
    _check(confidence)
    # Its edges, to the last bit of float32: of 15 bins, 0.2 lies on an edge by numpy and below it by torch.
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float32).numpy()
    return np.searchsorted(edges, confidence.astype(np.float32), side="right") - 1


def equal_mass_bins(confidence: np.ndarray, bins: int = BINS) -> np.ndarray:
    """The bin of each confidence when each bin is to hold as many; equal confidences share a bin.

    Adaptive calibration error (Nguyen and O'Connor 2015; Nixon et al. 2019): where nearly all confidences are high,
    equal widths leave most bins empty.
    """
    _check(confidence)
    if not len(confidence):
        return np.zeros(0, dtype=np.int64)
    edges = np.unique(np.quantile(confidence, np.linspace(0, 1, bins + 1), method="inverted_cdf"))
    return np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, max(len(edges) - 2, 0))


def _check(confidence: np.ndarray) -> None:
    wrong = confidence[~((confidence >= 0) & (confidence <= 1))]
    if len(wrong):
        raise ValueError(f"a confidence is a probability from 0 to 1, got {float(wrong[0])}; see models.Response")


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bin_of: np.ndarray) -> float:
    """Expected calibration error: the mean over answers of |share right - mean confidence| of their bin.

    Args:
        confidence, correct: (N,).
        bin_of: (N,) numbers of bins.
    """
    if not len(confidence):
        raise ValueError("a calibration error needs at least one answer")
    gap = np.bincount(bin_of, weights=correct) - np.bincount(bin_of, weights=confidence)
    return float(np.abs(gap).sum() / len(confidence))


def calibration(rows: Sequence[Row], clusters: Clusters) -> dict[str, Any] | None:
    """Calibration of answers that are right or wrong.

    Args:
        rows: of one condition, with "correct" and "confidence"; those whose confidence is None are counted.

    Returns:
        None when no answer has a confidence, else {"n", "without_confidence", "confidence", "accuracy", "ece",
        "ece_adaptive", "bins", "ece_if_calibrated", "brier", "reliability"}. "ece_if_calibrated": mean and 95th
        percentile of the error of a perfectly calibrated model with the same confidences and as many independent
        answers (Broecker and Smith 2007): an error below it shows nothing. "reliability": a row per bin of equal width
        that is not empty.
    """
    known = [row for row in rows if row.get("confidence") is not None]
    if not known:
        return None
    confidence = np.array([float(row["confidence"]) for row in known])
    correct = np.array([float(row["correct"]) for row in known])
    bin_of = equal_width_bins(confidence)
    squared = np.stack([(confidence - correct) ** 2, np.ones_like(confidence)], axis=1)
    expected = _if_calibrated(confidence, bin_of, clusters.seed)
    return {
        "n": len(known),
        "without_confidence": len(rows) - len(known),
        "confidence": float(confidence.mean()),
        "accuracy": float(correct.mean()),
        "bins": BINS,
        "ece": calibration_error(confidence, correct, bin_of),
        "ece_adaptive": calibration_error(confidence, correct, equal_mass_bins(confidence)),
        "ece_if_calibrated": {"mean": float(expected.mean()), "p95": float(np.quantile(expected, 0.95))},
        "brier": asdict(clustered(squared, clusters.of(known), seed=clusters.seed, share=True)),
        "reliability": reliability(confidence, correct, bin_of),
    }


def reliability(confidence: np.ndarray, correct: np.ndarray, bin_of: np.ndarray, bins: int = BINS) -> list[Row]:
    """A row per bin that is not empty: its edges, n, mean confidence, share right with Wilson's interval.

    The interval takes answers for independent: it is for the eye.
    """
    found: list[Row] = []
    for number in np.unique(bin_of):
        inside = bin_of == number
        n, right = int(inside.sum()), float(correct[inside].sum())
        low, high = wilson(right, n)
        found.append(
            {
                "from": min(1.0, float(number) / bins),
                "to": min(1.0, float(number + 1) / bins),
                "n": n,
                "confidence": float(confidence[inside].mean()),
                "accuracy": right / n,
                "low": low,
                "high": high,
            }
        )
    return found


def _if_calibrated(confidence: np.ndarray, bin_of: np.ndarray, seed: int) -> np.ndarray:
    """Calibration errors of a model that is right with exactly its confidence, (_REPEATS,) or fewer of many answers."""
    generator = np.random.default_rng([seed, 2])
    repeats = max(100, min(_REPEATS, 5_000_000 // len(confidence)))
    said = np.bincount(bin_of, weights=confidence)
    found = np.empty(repeats)
    for number in range(repeats):
        right = np.bincount(bin_of[generator.random(len(confidence)) < confidence], minlength=len(said))
        found[number] = np.abs(right - said).sum() / len(confidence)
    return found
