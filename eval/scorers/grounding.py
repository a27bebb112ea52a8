"""Boxes against reference boxes: intersection over union, and how far the centres are apart."""

from __future__ import annotations

from dataclasses import dataclass

from medvlm.data_recipes.box_text import BoxForm, ReadBox, read_box, reference_boxes
from medvlm.data_recipes.grounding import centre_distance_mm, iou
from medvlm.data_recipes.sample import Question


@dataclass(frozen=True, kw_only=True)
class BoxScore:
    """How well one answer lies.

    Attributes:
        iou: with the reference that it fits best, of several; 0 when no box could be read, so that a mean over all
            questions is neither spared nor punished twice (M3D's benchmark writes -1 there).
        centre_mm: to the centre of the nearest reference; None when no box could be read or the spacing is unknown.
    """

    iou: float
    centre_mm: float | None


def read_answer(question: Question, text: str, form: BoxForm = "box") -> ReadBox:
    """The box that ``text`` names, in the axes of the references of ``question``."""
    axes = len(reference_boxes(question.answers, question.extent_mm)[0].low)
    return read_box(text, axes=axes, extent=question.extent_mm or None, form=form)


def score_box(question: Question, value: str | None) -> BoxScore:
    """Score an extracted box.

    Args:
        value: a box in our own form, as extraction leaves it; None when none could be read.
    """
    box = None if value is None else read_answer(question, value).box
    if box is None:
        return BoxScore(iou=0.0, centre_mm=None)
    references = reference_boxes(question.answers, question.extent_mm)
    distances = [centre_distance_mm(box, one, question.extent_mm) for one in references] if question.extent_mm else []
    return BoxScore(iou=max(iou(box, one) for one in references), centre_mm=min(distances, default=None))
