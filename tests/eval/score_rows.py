"""Rows of scores.jsonl for the tests of what is made of them."""

from __future__ import annotations

from typing import Any


def score_row(sample: str, patient: str, correct: bool, **more: Any) -> dict[str, Any]:
    """The row of one closed answer, read in the asked form; ``more`` replaces and adds keys."""
    return {
        "request_id": f"{sample}/{more.get('condition', 'image')}/{more.get('request', 0)}",
        "sample_id": sample,
        "patient": patient,
        "study": patient,
        "condition": "image",
        "kind": "closed",
        "topic": "presence",
        "dimension": "2d",
        "strata": {},
        "unanswerable": False,
        "value": "yes",
        "rule": "exact",
        "unparsed": False,
        "empty": False,
        "truncated": False,
        "confidence": None,
        "correct": correct,
        "choices": ["yes", "no"],
        "reference": "yes",
        "flags": [],
    } | more
