"""Reports by rules: 14 labels, invented findings, side, severity, measurements, change, templates (tier B).

What the rules can and cannot read: docs/labeller.md.
"""

from __future__ import annotations

from medvlm.eval.metric import Scorer
from medvlm.eval.scorers import chexpert_scores, report_details, report_fields

SCORERS: tuple[Scorer, ...] = (chexpert_scores.SCORER, *report_details.SCORERS, report_fields.SCORER)
