"""PreferenceConfig: how a stage learns from pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from medvlm.data_recipes.typed_yaml import nearest
from medvlm.train.settings.checks import check_range, later, refuse

PreferenceLoss = Literal["sigmoid", "sigmoid_norm", "robust", "ipo", "hinge", "bco", "bco_pair", "kto", "orpo", "simpo"]
"""What the losses of train.objectives.preference_losses are called, as in TRL; ``bco`` has the paper's shift."""

REFERENCE_FREE: frozenset[PreferenceLoss] = frozenset({"orpo", "simpo"})
"""Losses of the policy alone: no adapters are needed for a reference, and any component may be trained."""


@dataclass(frozen=True, kw_only=True)
class PreferenceConfig:
    """Preference optimisation; paper and equation of each loss stand in train.objectives.preference_losses.

    Attributes:
        beta: strength of the pull towards the reference model; the scale of the margin of ORPO and SimPO.
        loss: one name, or names and their weights; MPO (arXiv:2411.10442) is {sigmoid: 0.8, bco: 0.2} with a
            supervised_weight of 1.
        label_smoothing: assumed share of flipped pairs, of sigmoid, robust and simpo.
        supervised_weight: weight of the token loss of the chosen answer, added to the preference loss.
        margin: of simpo: how far the chosen answer must be ahead (gamma).
        desirable_weight: of kto: of chosen answers.
        undesirable_weight: of kto: of rejected answers.
    """

    beta: float = 0.1
    loss: PreferenceLoss | dict[str, float] = "sigmoid"
    label_smoothing: float = 0.0
    supervised_weight: float = 0.0
    margin: float = later(0.5)
    desirable_weight: float = later(1.0)
    undesirable_weight: float = later(1.0)

    def __post_init__(self) -> None:
        if not 0 < self.beta < math.inf:
            refuse(f"beta is {self.beta:g}", "use a number above 0, such as 0.1")
        check_range("label_smoothing", self.label_smoothing, 0, 0.499)
        for name in ("supervised_weight", "margin", "desirable_weight", "undesirable_weight"):
            check_range(name, getattr(self, name), 0)
        if not self.weights:
            refuse("loss is an empty mapping", "name a loss, or several with weights: {sigmoid: 0.8, bco: 0.2}")
        known = get_args(PreferenceLoss)
        for name, weight in self.weights.items():
            if name not in known:
                refuse(f"unknown preference loss {name!r}{nearest(name, known)}", f"use one of {', '.join(known)}")
            if not 0 < weight < math.inf:
                refuse(f"weight of the loss {name!r} is {weight:g}", "use a number above 0, or leave the loss out")
        self._refuse_unread()

    def _refuse_unread(self) -> None:
        """A setting that none of the losses reads is a mistake, not a wish."""
        readers = {
            "label_smoothing": ({"sigmoid", "robust", "simpo"}, 0.0),
            "margin": ({"simpo"}, 0.5),
            "desirable_weight": ({"kto"}, 1.0),
            "undesirable_weight": ({"kto"}, 1.0),
        }
        for name, (losses, default) in readers.items():
            if getattr(self, name) != default and not losses & set(self.weights):
                refuse(
                    f"{name!r} is set, but no loss of {', '.join(self.weights)} reads it",
                    f"leave it out, or use {' or '.join(sorted(losses))}",
                )

    @property
    def weights(self) -> Mapping[str, float]:
        """Loss -> its weight."""
        return {self.loss: 1.0} if isinstance(self.loss, str) else self.loss

    @property
    def needs_reference(self) -> bool:
        """Whether a loss compares the policy with what it was at the start."""
        return not set(self.weights) <= REFERENCE_FREE
