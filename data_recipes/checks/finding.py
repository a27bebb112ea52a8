"""Finding: one thing that is wrong, where it stands, and what mends it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from medvlm.data_recipes.checks.catalogue import Catalogue, Seen
from medvlm.data_recipes.sample import VisualRef

Severity = Literal["error", "warning", "note"]

CHECKS = {
    "rows": "rows that can be read",
    "patients": "a patient in one split only",
    "sample_ids": "one sample per id",
    "image_copies": "no image in two splits (same file or same pixels)",
    "near_copies": "no near-duplicate image in two splits (perceptual hash)",
    "test_set_images": "no image of a registered test set",
    "text_copies": "no text in two splits (n-grams)",
    "test_set_texts": "no text of a registered test set (n-grams)",
    "names_in_text": "no identifiers in texts",
    "names_in_tags": "no identifiers in DICOM tags",
    "names_in_pixels": "no text burned into pixels",
    "sides": "no side words under augmentations that mirror",
    "shortcuts": "questions that do not give their answer away",
    "empty_answers": "no empty answers",
    "masked_targets": "answers that leave something to learn",
    "lengths": "samples within the budgets of tokens and patches",
    "licences": "a licence for every row",
    "files": "files that can be read and are what they were",
    "series_gaps": "series without gaps",
    "spacing": "possible spacing",
    "answers": "answers spread alike over splits",
}
"""Every check: its name, and what holds when it finds nothing."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found.

    Attributes:
        check: a key of CHECKS.
        severity: an error makes the verdict "fail", and its row goes to the quarantine; a warning wants a look; a note
            is told once and asks nothing.
        where: "path:row", or the manifest where it is about many rows.
        sample_id: of the row, where it is about one.
        reason: what was found; no identifier of a patient is ever quoted.
        mend: what the user can do.
        visual, other: pictures that show it, with absolute paths; ``other`` is the copy.
        leave_out: whether leaving the row out of training mends it; errors of test sets themselves do not.
    """

    check: str
    severity: Severity
    where: str
    reason: str
    mend: str
    sample_id: str | None = None
    visual: VisualRef | None = None
    other: VisualRef | None = None
    leave_out: bool = True

    def __post_init__(self) -> None:
        if self.check not in CHECKS:
            raise ValueError(f"unknown check {self.check!r}; use one of {', '.join(CHECKS)}")

    def to_dict(self) -> dict[str, Any]:
        """One row of findings.jsonl."""
        shown = {
            name: {"type": ref.kind, "path": ref.path, **({"options": ref.options} if ref.options else {})}
            for name, ref in (("visual", self.visual), ("other", self.other))
            if ref is not None
        }
        return {
            "check": self.check,
            "severity": self.severity,
            "where": self.where,
            "sample_id": self.sample_id,
            "reason": self.reason,
            "mend": self.mend,
            "quarantine": self.severity == "error" and self.leave_out,
            **shown,
        }


class RowCheck(Protocol):
    """A check of manifest rows: sees each once, keeps little, and tells at the end."""

    def see(self, row: Seen) -> None:
        """Take note of one row."""

    def findings(self, catalogue: Catalogue) -> Iterator[Finding]:
        """What was found; rows that are named are read again by their number."""
