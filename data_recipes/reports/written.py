"""What a model learns to write for a study, and what it is told before: answer and context out of a Report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.reports.cleaning import Policy, apply_policy, blanks, nothing_left, repair
from medvlm.data_recipes.reports.priors import without_prior
from medvlm.data_recipes.reports.sections import Report

ANSWER = ("findings", "impression", "findings and impression")
CONTEXT = ("indication", "history")
"""What is known before the images are read. Comparison and technique name other images, and addenda come later."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """The answer of a study.

    Attributes:
        text: "Findings: ...\\nImpression: ..." with the sections that are there; a last paragraph without a name.
        metadata: ``sections`` (names, "last paragraph" among them), ``deidentified`` (marks of de-identification are in
            the text), ``dropped_sentences`` (how many the policies left out).
    """

    text: str
    metadata: dict[str, Any] = field(default_factory=dict)


def answer_of(
    report: Report,
    *,
    where: str,
    prior_shown: bool = False,
    marks: Policy = "keep",
    unseen_prior: Policy = "keep",
    last_paragraph: bool = True,
) -> Written:
    """Findings and impression of ``report``, white space repaired, under the policies.

    Args:
        marks: what to do with sentences that hold marks of de-identification.
        unseen_prior: what to do with sentences that speak of an earlier image, when none is shown.
        last_paragraph: take it as the answer of a report that has neither findings nor impression by header.

    Raises:
        BadSample: no such section, a policy that refuses, or nothing left.
    """
    found = [(name, text) for name in ANSWER if (text := report.text_of(name))]
    if not found and last_paragraph and report.last_paragraph is not None:
        found = [("last paragraph", report.last_paragraph.text)]
    if not found:
        raise BadSample(
            "neither findings nor an impression stands in the report",
            where=where,
            mend="leave the report out, or write the headers FINDINGS: and IMPRESSION:",
        )
    lines, names, dropped = [], [], 0
    for name, text in found:
        cleaned = apply_policy(repair(text).text, marks, where=where, empty_ok=True)
        dropped += len(cleaned.dropped)
        if not prior_shown:
            cleaned = without_prior(cleaned.text, unseen_prior, where=where, empty_ok=True)
            dropped += len(cleaned.dropped)
        if cleaned.text:
            names.append(name)
            lines.append(cleaned.text if name == "last paragraph" else f"{name.capitalize()}: {cleaned.text}")
    if not lines:
        raise nothing_left(where)
    text = "\n".join(lines)
    return Written(
        text=text,
        metadata={"sections": names, "deidentified": bool(blanks(text)), "dropped_sentences": dropped},
    )


def context_of(report: Report) -> str:
    """ "Indication: ..." and "History: ..." as lines, "" where neither is there; never anything of the reading."""
    lines = (f"{name.capitalize()}: {repair(text).text}" for name in CONTEXT if (text := report.text_of(name)))
    return "\n".join(lines)
