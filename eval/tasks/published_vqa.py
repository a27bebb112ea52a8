"""Figures of others on the public VQA benchmarks, as they are printed, with what differs from ours."""

from __future__ import annotations

from medvlm.eval.task import Published

LINGSHU = "model card of Lingshu-7B (2025), table Medical Multimodal VQA"
HULU = "README of Hulu-Med (2025)"
_JUDGED = (
    "MedEvalKit: one accuracy over closed and open questions; open answers judged by GPT-4.1, not matched exactly; "
    "closed means the answer is yes or no; prompts ask for a concise answer"
)
_NEAREST = (
    "MedEvalKit: what names no option is taken for the option that looks most like it (difflib), so nothing is "
    "unparsed and an empty answer counts as A"
)


def judged(model: str, percent: float, source: str, more: str = "") -> Published:
    """A figure over all questions of a set of closed and open ones."""
    how = _JUDGED + (f"; {more}" if more else "")
    return Published(metric="strict_accuracy", value=round(percent / 100, 4), model=model, source=source, how=how)


def nearest(model: str, percent: float, source: str, more: str = "") -> Published:
    """A figure over multiple-choice questions."""
    how = _NEAREST + (f"; {more}" if more else "")
    return Published(metric="choice_accuracy", value=round(percent / 100, 4), model=model, source=source, how=how)
