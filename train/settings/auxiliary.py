"""AuxiliaryLoss: a further loss of a stage, on a head beside the language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medvlm.train.settings.checks import check_range


@dataclass(frozen=True, kw_only=True)
class AuxiliaryLoss:
    """A loss that is added to that of the objective, over the same forward pass.

    Attributes:
        kind: "findings" (one yes or no for each finding), "progression" (better, same, worse for each finding),
            "triplets" (entity and position, MedKLIP), "unpaired" (visuals and texts that do not belong together,
            MedRAT).
        weight: of this loss beside that of the objective.
    """

    kind: Literal["findings", "progression", "triplets", "unpaired"]
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_range("auxiliary weight", self.weight, 0)
