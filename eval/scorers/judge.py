"""Marks by a language model behind an endpoint, cached, off by default (tier D)."""

from __future__ import annotations

from medvlm.eval.metric import Scorer

SCORERS: tuple[Scorer, ...] = ()
