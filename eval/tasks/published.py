"""Where published figures stand that several tasks cite."""

from __future__ import annotations

TABLES = "tables in the READMEs of MedEvalKit (commit 9b12e3b, 2026-02) and Hulu-Med"
"""Most figures of medical vision-language models are copied from one of these two tables into the other."""

LETTER = "letter asked for; what the rules cannot read is given to the option whose spelling is nearest"
"""How MedEvalKit reads a multiple-choice answer."""
