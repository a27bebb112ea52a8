"""What a model is shown besides the question: the image, no image, or another patient's; and the same asked otherwise.

A model that answers as well without the image, or with somebody else's, has learnt the questions and not the pictures.
One that answers otherwise when its choices stand in another order, the question in other words, or the picture in a
little noise, has not understood them; see rewording.py and noise.py.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

from medvlm.data_recipes.sample import Sample, Turn, VisualRef, visuals_of

Condition = Literal["image", "no_image", "swapped", "choices_shuffled", "paraphrase", "noise"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
BLIND: tuple[Condition, ...] = ("no_image", "swapped")
"""Under these a model cannot know the answer; under the others it should give the same one."""

Visuals = tuple[VisualRef, ...]


def patient_of(sample: Sample) -> str:
    """The patient, told apart from patients of other sources that carry the same number."""
    return f"{sample.source}/{sample.patient_id}"


def without_visuals(turns: Iterable[Turn]) -> tuple[Turn, ...]:
    """The conversation with every visual part removed; a turn that held only visuals keeps an empty text."""
    return tuple(
        Turn(role=turn.role, content=tuple(p for p in turn.content if isinstance(p, str)) or ("",)) for turn in turns
    )


def with_visuals(turns: Sequence[Turn], visuals: Visuals) -> tuple[Turn, ...]:
    """The conversation with its visuals replaced, position by position.

    Raises:
        ValueError: not as many visuals as the conversation holds.
    """
    held = len(visuals_of(turns))
    if held != len(visuals):
        raise ValueError(f"the conversation holds {held} visuals, got {len(visuals)} to put in their place")
    rest = iter(visuals)
    return tuple(
        Turn(role=turn.role, content=tuple(p if isinstance(p, str) else next(rest) for p in turn.content))
        for turn in turns
    )


def _interchangeable(sample: Sample) -> tuple[object, ...]:
    """What two samples must share for their visuals to be swapped."""
    kinds = tuple(ref.kind for ref in sample.visuals())
    return (kinds, sample.source, str(sample.metadata.get("modality", "")))


def _key(visuals: Visuals) -> tuple[str, ...]:
    return tuple(f"{ref.sha256 or ref.path}|{sorted(ref.options.items())}" for ref in visuals)


def swap_partners(samples: Iterable[Sample], *, seed: int) -> dict[str, Visuals]:
    """For each sample, the visuals of another patient that stand in for its own.

    Patients whose visuals are interchangeable (same source, modality and kinds in the same order) are put in a
    seeded circle, and each takes the visuals of the next one: a derangement, so that no patient keeps its own.
    Samples of one patient that show the same visuals get the same stand-ins.

    Args:
        samples: samples of ONE manifest, so that every path has the same root.
        seed: of the circle.

    Returns:
        sample_id -> visuals; a sample without visuals, or whose group has no other patient with other visuals,
        is left out.
    """
    groups: dict[tuple[object, ...], dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        if sample.visuals():
            groups[_interchangeable(sample)][patient_of(sample)].append(sample)
    partners: dict[str, Visuals] = {}
    for group in sorted(groups, key=repr):
        circle = sorted(groups[group])
        random.Random(f"{seed}/{group!r}").shuffle(circle)
        shown = {patient: _distinct(groups[group][patient]) for patient in circle}
        for place, patient in enumerate(circle):
            others = circle[place + 1 :] + circle[:place]
            partners |= _stand_ins(groups[group][patient], shown, others)
    return partners


def _distinct(samples: Iterable[Sample]) -> dict[tuple[str, ...], Visuals]:
    return {_key(sample.visuals()): sample.visuals() for sample in samples}


def _stand_ins(
    samples: Sequence[Sample],
    shown: Mapping[str, dict[tuple[str, ...], Visuals]],
    others: Sequence[str],
) -> dict[str, Visuals]:
    """The stand-ins of one patient's samples, from the first of ``others`` that shows anything else."""
    own = list(_distinct(samples))
    known = {one for key in own for one in key}
    found: dict[str, Visuals] = {}
    for sample in samples:
        number = own.index(_key(sample.visuals()))
        for other in others:
            # One picture may be filed under two patient numbers: showing it again, be it among others, is no control.
            usable = [visuals for key, visuals in shown[other].items() if known.isdisjoint(key)]
            if usable:
                found[sample.sample_id] = usable[number % len(usable)]
                break
    return found
