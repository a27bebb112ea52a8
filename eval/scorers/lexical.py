"""Overlap of words as the report literature counts it: BLEU, ROUGE-L, METEOR, CIDEr-D, chrF (tier A)."""

from __future__ import annotations

from medvlm.eval.metric import Scorer

SCORERS: tuple[Scorer, ...] = ()
