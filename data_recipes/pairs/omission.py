"""A report that leaves out one of its findings."""

from __future__ import annotations

import re

import numpy as np

from medvlm.data_recipes.pairs.case import Case, Change
from medvlm.data_recipes.pairs.english import HEADING, Sentence
from medvlm.data_recipes.pairs.finding_words import asserted, group_of, is_salient, mentioned
from medvlm.data_recipes.pairs.pool import Pool


def omitted_finding(case: Case, rng: np.random.Generator, pool: Pool) -> Change | None:
    """Every sentence that speaks of one finding is left out; every section must still say something.

    Only what is asserted can be omitted: leaving out "No pneumothorax" or "The lungs are clear" makes no report wrong.
    Findings that reports often leave out (degenerative spine, tortuous aorta, lines) are kept.
    """
    if not case.english or not case.is_report:
        return None
    keys = sorted({key for sentence in case.sentences for key in asserted(sentence) if is_salient(key)})
    ways = []
    for key in keys:
        dropped = [s for s in case.sentences if group_of(key) in {group_of(k) for k in mentioned(s.text)}]
        # A sentence that also denies or calls normal would take a true denial with it.
        if all(s.asserted == len(s.text) for s in dropped) and _sections_keep_text(case, dropped):
            ways.append((key, dropped))
    if not ways:
        return None
    key, dropped = ways[int(rng.integers(len(ways)))]
    text = without(case.answer, dropped)
    return Change(
        text=text,
        how={"finding": key, "old": " ".join(s.text for s in dropped), "spans": [[s.start, s.end] for s in dropped]},
    )


def section_of(text: str, place: int) -> int:
    """Number of headings before ``place``: which section it is in."""
    return sum(match.start() <= place for match in HEADING.finditer(text))


def _sections_keep_text(case: Case, dropped: list[Sentence]) -> bool:
    before = {section_of(case.answer, s.start) for s in case.sentences}
    return before == {section_of(case.answer, s.start) for s in case.sentences if s not in dropped}


def without(text: str, dropped: list[Sentence]) -> str:
    """``text`` without these sentences, and without headings and enumerators that nothing follows."""
    for sentence in sorted(dropped, key=lambda s: -s.start):
        before = re.sub(r"(?:^|(?<=\s))\d{1,2}[.)]\s*$", "", text[: sentence.start])
        text = before + text[sentence.end :].lstrip(" ")
    text = re.sub(rf"{HEADING.pattern}\s*(?={HEADING.pattern}|\Z)", "", text, flags=re.I)
    return re.sub(r" {2,}", " ", text).strip()
