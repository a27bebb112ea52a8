"""The report of another patient, about other findings."""

from __future__ import annotations

import numpy as np

from medvlm.data_recipes.pairs.case import Case, Change
from medvlm.data_recipes.pairs.english import same_text
from medvlm.data_recipes.pairs.finding_words import is_salient
from medvlm.data_recipes.pairs.pool import Pool


def differ(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether a finding that no report would leave out is asserted in one of them only."""
    return any(is_salient(key) for key in one ^ other)


def other_report(case: Case, rng: np.random.Generator, pool: Pool) -> Change | None:
    """A report of another patient of the same source, modality and body part, whose findings are not the same ones.

    Two normal reports are both true of either patient, so a finding must be asserted in one of them only.
    """
    if not case.english or not case.is_report:
        return None
    for other in pool.others(case.group, case.sample.patient_id, rng):
        if not other.report or same_text(other.answer, case.answer) or not differ(other.positives, case.positives):
            continue
        how = {
            "from_sample": other.sample_id,
            "invented": sorted(other.positives - case.positives),
            "missed": sorted(case.positives - other.positives),
        }
        return Change(text=other.answer, how=how)
    return None
