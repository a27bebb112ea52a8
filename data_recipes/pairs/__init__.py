"""Preference pairs from true answers: a rule makes one thing wrong in the text, or shows another image."""

from __future__ import annotations
