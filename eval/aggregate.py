"""The aggregate stage: scores.jsonl -> metrics.json, every number with its n, its interval and what went unread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medvlm.eval.abstention import abstention
from medvlm.eval.against_controls import against_controls, looks_at_the_image
from medvlm.eval.bounds import bounds_table
from medvlm.eval.calibration import calibration
from medvlm.eval.intervals import FEW_CLUSTERS, RARE
from medvlm.eval.main_metrics import right_or_wrong
from medvlm.eval.metric import TIERS
from medvlm.eval.patient_level import patient_level
from medvlm.eval.plan import DIMENSIONS
from medvlm.eval.published import gap_to_published
from medvlm.eval.rows import Row, write_json
from medvlm.eval.scorers.catalogue import SCORERS
from medvlm.eval.subgroups import subgroups
from medvlm.eval.table import ALL, clusters_of, look_up, table_of

__all__ = ["ALL", "CLUSTERS", "aggregate", "look_up"]

CLUSTERS = ("patient", "study")
"""What is drawn again for an interval: rows of scores.jsonl say which one they belong to."""


def aggregate(
    scores: Sequence[Row],
    out: Path,
    *,
    not_asked: Mapping[str, Mapping[str, int]],
    run: Mapping[str, Any],
    cluster: str = "patient",
    seed: int = 0,
) -> dict[str, Any]:
    """Write ``out``/metrics.json and return it.

    Args:
        scores: rows of scores.jsonl.
        not_asked: condition -> reason -> number of samples, from the plan.
        run: what identifies the run (model, manifests, versions); copied.
        cluster: of CLUSTERS.
        seed: of the bootstrap.

    Returns:
        a dict of

        - "run", "not_asked", "counts", "signatures": what was asked, how it was answered, how it was marked;
        - "headline": flat numbers;
        - "table": a row per condition, dimension, topic and metric ("all" for totals) with tier, value, low, high,
          method, n, n_clusters, unscored, unparsed, empty, truncated, and of accuracies strict and upper (bounds.py);
        - "bounds": those of all questions; "gap_to_published" (published.py);
        - "looks_at_the_image": for each dimension; "against_controls": the tests behind it (against_controls.py);
        - "subgroups", "calibration", "patient_level": of the answers with the image; "abstention": of all conditions.
          Each is described in the module of its name; None where nothing of the kind was asked.
    """
    clusters = clusters_of(scores, cluster, seed)
    of = {
        name: [row for row in scores if row["condition"] == name]
        for name in dict.fromkeys(r["condition"] for r in scores)
    }
    table: list[Row] = [
        {"condition": condition, **row} for condition, asked in of.items() for row in table_of(asked, clusters)
    ]
    compared = against_controls(scores, clusters)
    shown = of.get("image", [])
    metrics: dict[str, Any] = {
        "run": dict(run),
        "headline": _headline(table),
        "looks_at_the_image": looks_at_the_image(compared),
        "against_controls": compared,
        "table": table,
        "bounds": bounds_table(table),
        "gap_to_published": gap_to_published(run, table),
        "subgroups": subgroups(shown, clusters) if shown else None,
        "calibration": calibration(right_or_wrong(shown), clusters),
        "abstention": abstention(scores, clusters),
        "patient_level": patient_level(shown, clusters) if shown else None,
        "counts": _counts(scores),
        "not_asked": {name: dict(reasons) for name, reasons in not_asked.items()},
        "signatures": _signatures(scores, cluster),
    }
    write_json(out / "metrics.json", metrics)
    return metrics


def _signatures(scores: Sequence[Row], cluster: str) -> dict[str, str]:
    kinds = {row["kind"] for row in scores}
    return {
        "interval": f"95 %, BCa bootstrap over {_PLURAL[cluster]} (2000 resamples, BLEU 500; Poisson weights, seeded); "
        f"Wilson when every {cluster} was asked once, and with n = {_PLURAL[cluster]} when every answer was right or "
        f"wrong; both, whichever is wider, when the rarer of right and wrong occurs in fewer than {RARE} "
        f"{_PLURAL[cluster]}; not to be trusted below {FEW_CLUSTERS} {_PLURAL[cluster]}",
        **{
            one.name: f"tier {one.tier}, {TIERS[one.tier]}. {one.implementation}"
            for one in SCORERS
            if kinds & set(one.kinds)
        },
    }


_PLURAL = {"patient": "patients", "study": "studies"}


def _headline(table: Sequence[Row]) -> dict[str, float | None]:
    """Flat numbers; None for what was not asked."""

    def value(metric: str, condition: str = "image", dimension: str = ALL, topic: str = ALL) -> float | None:
        row = look_up(table, metric, condition, dimension, topic)
        return None if row is None else row["value"]

    headline: dict[str, float | None] = {
        f"closed_accuracy_{d}": value("closed_accuracy", dimension=d) for d in DIMENSIONS
    }
    headline |= {f"side_accuracy_{d}": value("closed_accuracy", dimension=d, topic="side") for d in ("2d", "3d")}
    for suffix, dimension in (("", ALL), *((f"_{d}", d) for d in DIMENSIONS)):
        headline[f"majority_accuracy{suffix}"] = value("majority_accuracy", dimension=dimension)
        headline[f"no_image_accuracy{suffix}"] = value("closed_accuracy", "no_image", dimension)
        headline[f"swapped_image_accuracy{suffix}"] = value("closed_accuracy", "swapped", dimension)
        headline[f"choice_accuracy{suffix}"] = value("choice_accuracy", dimension=dimension)
        headline[f"finding_f1{suffix}"] = value("finding_f1", dimension=dimension)
        headline[f"box_iou{suffix}"] = value("box_iou", dimension=dimension)
    for metric in ("open_exact_match", "open_token_f1", "negation_accuracy", "bleu_4", "rouge_l"):
        headline[metric] = value(metric)
    return headline


def _counts(scores: Sequence[Row]) -> dict[str, Any]:
    unknown = Counter(k for row in scores if row["kind"] == "report" for k in row["findings"]["unknown_kinds"])
    sources = Counter(row["findings"]["reference"] for row in scores if row["kind"] == "report")
    return {
        "responses": len(scores),
        "unparsed": sum(row["unparsed"] for row in scores),
        "empty": sum(row["empty"] for row in scores),
        "truncated": sum(row["truncated"] for row in scores),
        "extraction_rules": dict(sorted(Counter(row["rule"] for row in scores).items())),
        "degenerate": dict(sorted(Counter(flag for row in scores for flag in row.get("flags", ())).items())),
        "reference_findings_from": dict(sorted(sources.items())),
        "reference_kinds_not_scored": dict(sorted(unknown.items())),
    }
