"""ContrastiveConfig: how a stage learns which text belongs to which visual."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from medvlm.train.settings.checks import check_range, refuse

START: dict[str, tuple[float, float | None]] = {"clip": (0.07, None), "siglip": (0.1, -10.0)}
"""Loss -> temperature and bias at the start, as their papers have them."""


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """Contrastive learning of visuals and texts (CLIP: Radford et al. 2021, arXiv:2103.00020; SigLIP: Zhai et al. 2023,
    arXiv:2303.15343).

    Attributes:
        loss: "clip" (softmax over all pairs of the step) or "siglip" (each pair for itself).
        size: of the space in which both lie.
        text: what stands for a text: the decoder's hidden state at its "last" token, or the "mean" over its tokens.
        pooling: what stands for a visual: the "mean" of the encoder's features, or "attention" by a learned query.
        temperature: at the start; it is learned. None: 0.07 for clip, 0.1 for siglip.
        mask_duplicates: pairs of one study, with one text or with the same visuals are no negatives of each other.
    """

    loss: Literal["clip", "siglip"] = "clip"
    size: int = 512
    text: Literal["last", "mean"] = "last"
    pooling: Literal["mean", "attention"] = "mean"
    temperature: float | None = None
    mask_duplicates: bool = True

    def __post_init__(self) -> None:
        check_range("contrastive size", self.size, 1)
        if self.temperature is not None and not 0.01 <= self.temperature <= 1:
            refuse(
                f"contrastive temperature is {self.temperature:g}",
                "use a number between 0.01 and 1 (the scale of the logits is held between 1 and 100), such as 0.07",
            )

    @property
    def log_scale(self) -> float:
        """Logarithm of the scale of the logits at the start."""
        return -math.log(START[self.loss][0] if self.temperature is None else self.temperature)

    @property
    def bias(self) -> float | None:
        """Bias of the logits at the start; None: there is none."""
        return START[self.loss][1]
