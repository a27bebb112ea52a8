"""What is said of an answer in a word, and which cases a person should look at first."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

from medvlm.data_recipes.stratify import in_turn
from medvlm.eval.rows import Row

Verdict = Literal["right", "partly", "wrong", "unparsed", "unmarked"]

WHY_UNREAD = {
    "empty": "nothing was written",
    "thinking_cut_off": "cut off while thinking",
    "conflict": "names several choices",
    "refused": "says that it cannot tell",
    "unparsed": "no rule could read it",
    "no_box": "names no box",
    "malformed_box": "the box is not written as asked",
    "wrong_count": "the box has too many or too few numbers",
    "out_of_range": "the box leaves the field of view",
    "reversed_corners": "the corners of the box are reversed or equal",
    "several_boxes": "names several boxes",
    "millimetres_unknown": "millimetres where the spacing is unknown",
}

WORTH = ("labels_example_f1", "entity_f1", "span_f1", "json_exact")
"""Marks between 0 and 1 of labels, spans and JSON objects."""


def worth(score: Row) -> float | None:
    """How good one answer is, from 0 to 1: for a word and for sorting, never for a table. None: nothing marks it."""
    if score["unparsed"]:
        return 0.0
    kind = score["kind"]
    if kind in ("closed", "choice"):
        return float(score["correct"])
    if kind == "box":
        return float(score["iou"])
    if kind == "open":
        return 1.0 if score["exact_match"] else min(0.99, float(score["token_f1"]))
    if kind == "report" and "findings" in score:
        found = score["findings"]
        total = 2 * found["hits"] + found["invented"] + found["missed"]
        return 2 * found["hits"] / total if total else 1.0
    if score.get("json_fields"):
        return min(float(score["json_exact"]) or 0.99, sum(score["json_fields"].values()) / len(score["json_fields"]))
    return next((float(score[key]) for key in WORTH if score.get(key) is not None), None)


def verdict(score: Row) -> Verdict:
    """The answer in a word; of a box, right from an intersection over union of a half."""
    if score["unparsed"]:
        return "unparsed"
    value = worth(score)
    if value is None:
        return "unmarked"
    if value >= (0.5 if score["kind"] == "box" else 1.0):
        return "right"
    return "partly" if value > 0 else "wrong"


def note(score: Row) -> str:
    """The score in words, where a tick does not say it all."""
    rule = score["rule"]
    if score["unparsed"]:
        return WHY_UNREAD.get(rule, rule.replace("_", " "))
    if score["kind"] == "open":
        said = f"{WHY_UNREAD['refused']}; " if rule == "refused" else ""
        return f"{said}token F1 {score['token_f1']:.2f}"
    if score["kind"] == "box":
        away = "" if score["centre_mm"] is None else f", centres {score['centre_mm']:.1f} mm apart"
        return f"IoU {score['iou']:.2f}{away}"
    if score["kind"] == "report" and "findings" in score:
        f = score["findings"]
        return f"findings: {f['hits']} right, {f['invented']} invented, {f['missed']} missed"
    if score["kind"] in ("closed", "choice"):
        return f"read as “{score['value']}” by rule {rule}"
    value = worth(score)
    return "" if value is None else f"{value:.2f} of 1"


def choose(scores: Sequence[Row], size: int, *, seed: int = 0, source_of: Mapping[str, str] | None = None) -> list[str]:
    """Samples to show: about two wrong for each right one, wrong ones first.

    Sources (of ``source_of``: sample_id -> source) and dimensions take turns, and in each of them kinds and topics. Of
    a sample its answer with its own image counts, or the first where that is not among ``scores``.
    """
    asked: dict[str, Row] = {}
    for row in scores:
        if row["sample_id"] not in asked or row["condition"] == "image":
            asked[row["sample_id"]] = row
    sources = source_of or {}
    wrong = _spread([row for row in asked.values() if verdict(row) != "right"], sources, seed)
    right = _spread([row for row in asked.values() if verdict(row) == "right"], sources, seed)
    n_wrong = min(len(wrong), max(round(size * 2 / 3), size - len(right)))
    return list(dict.fromkeys(wrong[:n_wrong] + right[: size - n_wrong]))


def _spread(rows: Sequence[Row], sources: Mapping[str, str], seed: int) -> list[str]:
    groups: dict[tuple[str, str], dict[tuple[str, str], list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        place = (sources.get(row["sample_id"], ""), row["dimension"])
        groups[place][(row["kind"], row["topic"])].append(row["sample_id"])
    piles = []
    for place in sorted(groups):
        for key in sorted(groups[place]):
            random.Random(f"{seed}/{place}/{key}").shuffle(groups[place][key])
        piles.append(in_turn([groups[place][key] for key in sorted(groups[place])]))
    return in_turn(piles)
