"""What a model does not answer, whether it should have, and what it would be worth to leave more to a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from medvlm.eval.intervals import proportion
from medvlm.eval.main_metrics import CHOICES, right_or_wrong
from medvlm.eval.rows import Row
from medvlm.eval.table import Clusters

REFUSED = "refused"
"""The extraction rule of an answer that says that the model cannot tell."""

KINDS = (*CHOICES, "open")
"""Of questions that can be answered by "I cannot tell"."""

_POINTS = 50


def abstention(scores: Sequence[Row], clusters: Clusters) -> dict[str, Any] | None:
    """Abstention under every condition.

    Returns:
        None when nothing was asked that can be refused, else

        - "conditions": condition -> n, refused, coverage (the share that is not refused) with interval, and of closed
          and multiple-choice questions the accuracy of those that were answered with interval;
        - "unanswerable": n, refused and the share refused with interval, over questions that nothing shown answers:
          those that their metadata mark, and those asked without their image. Refusing is right there;
        - "answerable": the same over all other questions asked with their own image, where refusing is wrong;
        - "risk_coverage": of answers with a confidence, see risk_coverage; None without any.
    """
    rows = [row for row in scores if row["kind"] in KINDS]
    if not rows:
        return None
    conditions = {
        name: [r for r in rows if r["condition"] == name] for name in dict.fromkeys(r["condition"] for r in rows)
    }
    unanswerable = [row for row in rows if row.get("unanswerable") or row["condition"] == "no_image"]
    answerable = [row for row in conditions.get("image", ()) if not row.get("unanswerable")]
    confident = [
        row
        for row in right_or_wrong(conditions.get("image", ()))
        if row.get("confidence") is not None and row["rule"] != REFUSED
    ]
    curve = None
    if confident:
        curve = risk_coverage([row["confidence"] for row in confident], [bool(row["correct"]) for row in confident])
        curve["without_confidence_or_refused"] = len(right_or_wrong(conditions["image"])) - len(confident)
    return {
        "conditions": {name: _coverage(members, clusters) for name, members in conditions.items()},
        "unanswerable": _refused(unanswerable, clusters),
        "answerable": _refused(answerable, clusters),
        "risk_coverage": curve,
    }


def _coverage(rows: Sequence[Row], clusters: Clusters) -> Row:
    answered = [row for row in rows if row["rule"] != REFUSED]
    marked = right_or_wrong(answered)
    given = [row["rule"] != REFUSED for row in rows]
    return {
        "n": len(rows),
        "refused": len(rows) - len(answered),
        "coverage": asdict(proportion(given, clusters.of(rows), seed=clusters.seed)),
        "selective_n": len(marked),
        "selective_accuracy": asdict(
            proportion([bool(row["correct"]) for row in marked], clusters.of(marked), seed=clusters.seed)
        ),
    }


def _refused(rows: Sequence[Row], clusters: Clusters) -> Row:
    refused = [row["rule"] == REFUSED for row in rows]
    return {
        "n": len(rows),
        "refused": sum(refused),
        "share": asdict(proportion(refused, clusters.of(rows), seed=clusters.seed)),
    }


def risk_coverage(confidence: Sequence[float], correct: Sequence[bool]) -> dict[str, Any]:
    """The share of wrong answers among the most confident ones, for every share of answers kept.

    AURC is the mean of that risk over all n coverages 1/n, 2/n, ..., 1 (Geifman and El-Yaniv 2017).
    Of answers that are equally confident no order is better than another: their risks are what a random order of them
    is expected to have, so that the order in the file changes nothing.

    Returns:
        {"n", "aurc", "aurc_best", "aurc_random", "points"}: "aurc_best" is that of the order with all right answers
        first, "aurc_random" that of any order that knows nothing (the share of wrong answers); "points" are up to 51
        {"coverage", "risk", "confidence"}, the last the least confidence that is kept.
    """
    if len(confidence) != len(correct) or not len(correct):
        raise ValueError(f"{len(confidence)} confidences of {len(correct)} answers; give one each, of at least one")
    said, wrong = np.asarray(confidence, dtype=float), 1.0 - np.asarray(correct, dtype=float)
    order = np.argsort(-said, kind="stable")
    said, wrong = said[order], wrong[order]
    n = len(said)
    # The expected number of errors after k answers, linear within a run of equal confidences.
    ends = np.append(np.flatnonzero(np.diff(said)), n - 1)
    errors = np.interp(np.arange(1, n + 1), np.append(0, ends + 1), np.append(0.0, np.cumsum(wrong)[ends]))
    risk = errors / np.arange(1, n + 1)
    best = np.maximum(0.0, np.arange(1, n + 1) - (n - wrong.sum())) / np.arange(1, n + 1)
    places = np.unique(np.round(np.linspace(0, n - 1, min(n, _POINTS + 1))).astype(int))
    return {
        "n": n,
        "aurc": float(risk.mean()),
        "aurc_best": float(best.mean()),
        "aurc_random": float(wrong.mean()),
        "points": [
            {"coverage": float((k + 1) / n), "risk": float(risk[k]), "confidence": float(said[k])} for k in places
        ],
    }
