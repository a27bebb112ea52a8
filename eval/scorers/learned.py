"""Marks by learned models, each in a process of its own (tier C)."""

from __future__ import annotations

from medvlm.eval.metric import Scorer

SCORERS: tuple[Scorer, ...] = ()
