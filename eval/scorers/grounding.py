"""Boxes against reference boxes: intersection over union, and how far the centres are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from medvlm.data_recipes.box_text import reference_boxes
from medvlm.data_recipes.grounding import centre_distance_mm, iou
from medvlm.data_recipes.sample import Question
from medvlm.eval.box_answer import read_answer
from medvlm.eval.metric import Answered, Marks, Metric, Scorer, each, mean_of
from medvlm.eval.rows import Row


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


def _score(answers: Sequence[Answered]) -> list[Marks | None]:
    return [{**asdict(score_box(one.question, one.value)), "reference": one.question.answers[0]} for one in answers]


def _at_least(row: Row, least: float) -> list[float]:
    return [float(row["iou"] >= least - 1e-9), 1.0]  # 1e-9 for rounding is given


SCORERS = (
    Scorer(
        name="boxes",
        tier="B",
        kinds=("box",),
        implementation="medvlm: intersection over union of areas or volumes, over all questions: an unread answer "
        "counts 0; the distance of centres is over the boxes that were read and whose field of view is known in "
        "millimetres",
        score=_score,
        metrics=(
            Metric(name="box_iou", title="Boxes: mean IoU", kinds=("box",), counts=mean_of("iou")),
            Metric(
                name="box_accuracy_25",
                title="Boxes: IoU at least 0.25",
                kinds=("box",),
                counts=each(lambda row: _at_least(row, 0.25)),
                share=True,
            ),
            Metric(
                name="box_accuracy_50",
                title="Boxes: IoU at least 0.5",
                kinds=("box",),
                counts=each(lambda row: _at_least(row, 0.5)),
                share=True,
            ),
            Metric(
                name="box_centre_mm",
                title="Boxes: distance of centres",
                kinds=("box",),
                counts=mean_of("centre_mm"),
                unit="mm",
                better="lower",
            ),
        ),
    ),
)
