"""Sets of labels, spans of text and JSON objects (tier A)."""

from __future__ import annotations

from medvlm.eval.metric import Scorer

SCORERS: tuple[Scorer, ...] = ()
