"""PreferenceConfig: how a stage learns from pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from medvlm.train.settings.checks import check_range, refuse

PreferenceLoss = Literal["sigmoid", "ipo", "hinge", "robust"]


@dataclass(frozen=True, kw_only=True)
class PreferenceConfig:
    """Preference optimisation (DPO: Rafailov et al. 2023; IPO: Azar et al. 2023; robust DPO: Chowdhury et
    al. 2024).

    Attributes:
        beta: strength of the pull towards the reference model.
        label_smoothing: assumed share of flipped pairs.
        supervised_weight: weight of the token loss of the chosen answer, added to the preference loss.
    """

    beta: float = 0.1
    loss: PreferenceLoss = "sigmoid"
    label_smoothing: float = 0.0
    supervised_weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.beta < math.inf:
            refuse(f"beta is {self.beta:g}", "use a number above 0, such as 0.1")
        check_range("label_smoothing", self.label_smoothing, 0, 0.499)
        check_range("supervised_weight", self.supervised_weight, 0)
