"""The box that an answer names."""

from __future__ import annotations

from medvlm.data_recipes.box_text import BoxForm, ReadBox, read_box, reference_boxes
from medvlm.data_recipes.sample import Question


def read_answer(question: Question, text: str, form: BoxForm = "box") -> ReadBox:
    """The box that ``text`` names, in the axes of the references of ``question``."""
    axes = len(reference_boxes(question.answers, question.extent_mm)[0].low)
    return read_box(text, axes=axes, extent=question.extent_mm or None, form=form)
