"""Which labels of a table are asked about one picture, where most of them are absent."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

from medvlm.data_recipes.sample import Split


def labels_to_ask(present: Collection[str], labels: Sequence[str], *, key: str, split: Split) -> tuple[str, ...]:
    """The labels in their order: all of them in evaluation, a balanced part of them in training.

    Of 14 findings a radiograph has one or none, so that "no" to everything would be right nearly always. Training asks
    for the present labels and for as many absent ones (one when nothing is present), chosen by a hash of ``key``: the
    choice depends on nothing but the picture. Evaluation asks for every label, so that scores compare with published
    ones.
    """
    if split != "train":
        return tuple(labels)
    absent = sorted(
        (label for label in labels if label not in present),
        key=lambda label: hashlib.sha256(f"{key}:{label}".encode()).hexdigest(),
    )
    asked = {*present, *absent[: max(1, len(present))]}
    return tuple(label for label in labels if label in asked)


def spoken(label: str, counted: Collection[str]) -> str:
    """The label as an English sentence names it: lower case, with "a" or "an" when it stands in ``counted``."""
    words = label.replace("_", " ").lower()
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}" if label in counted else words
