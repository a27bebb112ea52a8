"""Lora: low-rank adapters of a stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medvlm.data_recipes.typed_yaml import nearest
from medvlm.train.settings.checks import check_range, refuse

Component = Literal["vision", "projector", "text"]
COMPONENTS: tuple[Component, ...] = ("vision", "projector", "text")
ROLES = ("attention", "mlp", "all")
"""What LoRA may adapt inside a component."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters (Hu et al. 2021; DoRA: Liu et al. 2024; QLoRA: Dettmers et al. 2023).

    Attributes:
        targets: "component.role" pairs, such as "text.attention", "text.mlp"; the role "all" takes every linear layer
            but routers and the output layer.
        alpha: the update is scaled by alpha / rank.
        dora: also learn the magnitude of each adapted weight.
        quantize: "nf4" keeps the frozen linear layers of adapted components in 4 bits while the stage trains.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("text.attention", "text.mlp")
    dora: bool = False
    quantize: Literal["nf4"] | None = None
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        check_range("rank", self.rank, 1)
        check_range("dropout", self.dropout, 0, 0.95)
        if not 0 < self.learning_rate < 1:
            refuse(f"LoRA learning_rate is {self.learning_rate:g}", "use a number between 0 and 1")
        if not self.targets:
            refuse("LoRA has no targets", "name some, such as text.attention, or remove 'lora'")
        known = [f"{component}.{role}" for component in COMPONENTS for role in ROLES]
        for target in self.targets:
            if target not in known:
                refuse(f"unknown LoRA target {target!r}{nearest(target, known)}", f"use {', '.join(known)}")

    @property
    def components(self) -> tuple[str, ...]:
        """Components that are adapted, each once."""
        return tuple(dict.fromkeys(target.split(".")[0] for target in self.targets))
