"""ContrastiveConfig: how a stage learns which text belongs to which visual."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from medvlm.train.settings.checks import check_range, refuse


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """Contrastive learning of visuals and texts (CLIP: Radford et al. 2021, arXiv:2103.00020; SigLIP: Zhai et al. 2023,
    arXiv:2303.15343).

    Attributes:
        loss: "clip" (softmax over all pairs of the step) or "siglip" (each pair for itself).
        size: of the space in which both lie.
        text: what stands for a text: the decoder's hidden state at its "last" token, or the "mean" over its tokens.
        temperature: at the start; it is learned.
    """

    loss: Literal["clip", "siglip"] = "clip"
    size: int = 512
    text: Literal["last", "mean"] = "last"
    temperature: float = 0.07

    def __post_init__(self) -> None:
        check_range("contrastive size", self.size, 1)
        if not 0 < self.temperature < math.inf:
            refuse(f"contrastive temperature is {self.temperature:g}", "use a number above 0, such as 0.07")
