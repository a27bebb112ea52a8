"""Reports by rules beyond presence: laterality, severity, measurements, change over time, invented findings (tier B)."""

from __future__ import annotations

from medvlm.eval.metric import Scorer

SCORERS: tuple[Scorer, ...] = ()
