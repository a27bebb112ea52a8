"""ReinforcementConfig: how a stage learns from answers that it writes itself and a rule that marks them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from medvlm.train.settings.checks import check_range, refuse


@dataclass(frozen=True, kw_only=True)
class ReinforcementConfig:
    """Reinforcement learning with verifiable rewards (GRPO: Shao et al. 2024, arXiv:2402.03300).

    Attributes:
        group_size: answers written for each prompt; their rewards are compared with one another.
        max_new_tokens: longest answer.
        temperature: of the sampling.
        beta: weight of the divergence from the reference, which is the model with its adapters off; 0: none.
        rewards: name of a reward -> its weight.
    """

    group_size: int = 8
    max_new_tokens: int = 64
    temperature: float = 1.0
    beta: float = 0.0
    algorithm: Literal["grpo", "dapo", "dr_grpo"] = "grpo"
    rewards: dict[str, float] = field(default_factory=lambda: {"answer": 1.0})

    def __post_init__(self) -> None:
        check_range("group_size", self.group_size, 2)
        check_range("max_new_tokens", self.max_new_tokens, 1)
        check_range("beta", self.beta, 0)
        if not 0 < self.temperature < math.inf:
            refuse(f"temperature is {self.temperature:g}", "use a number above 0, such as 1")
