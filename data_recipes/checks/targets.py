"""Answers that leave nothing to learn: empty, or only what a de-identification put in the place of words."""

from __future__ import annotations

import re
from collections.abc import Iterator

from medvlm.data_recipes.checks.catalogue import Catalogue, Seen
from medvlm.data_recipes.checks.finding import Finding

MASKS = re.compile(
    r"\[\*\*.*?\*\*\]|\bx{3,}\b|_{2,}|<[^<>]{0,40}>|\[\W*(?:redacted|removed|name|date|deidentified|masked)\W*\]"
    r"|\b(?:redacted|deidentified)\b",
    re.IGNORECASE | re.DOTALL,
)
"""What stands for removed words: MIMIC's "[**...**]" and "___", Open-i's "XXXX", "<NAME>", "[REDACTED]"."""

_BOX = re.compile(r"<box>.*?</box>", re.DOTALL)


class Targets:
    """Finds rows whose answer has no word or number left."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, bool]] = []

    def see(self, row: Seen) -> None:
        if row.registered:
            return
        left = [left_of(answer) for answer in row.answers()]
        if not all(left):
            masked = any(MASKS.search(answer) for answer, rest in zip(row.answers(), left, strict=True) if not rest)
            self._rows.append((row.number, masked))

    def findings(self, catalogue: Catalogue) -> Iterator[Finding]:
        for number, masked in self._rows:
            row = catalogue.seen(number)
            yield Finding(
                check="masked_targets" if masked else "empty_answers",
                severity="error",
                where=row.where,
                sample_id=row.sample.sample_id,
                reason="the answer holds nothing but marks of de-identification"
                if masked
                else "the answer holds no letter and no number",
                mend="fill in the answer or drop the row",
            )


def left_of(answer: str) -> str:
    """The letters and digits of ``answer`` that no mask stands for; a box counts whole."""
    if _BOX.search(answer):
        return answer
    return "".join(re.findall(r"[^\W_]+", MASKS.sub(" ", answer)))
