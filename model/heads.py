"""Heads beside the language model: small maps that an objective adds to a model and that its checkpoint keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from medvlm.model.config import MedVLMConfig

KINDS: dict[str, Callable[..., nn.Module]] = {}
"""Name of a head -> what makes it from (config of the model, its arguments)."""


def build_heads(config: MedVLMConfig) -> nn.ModuleDict:
    """The heads that ``config.heads`` names, with random weights.

    Raises:
        ValueError: a head that there is not.
    """
    unknown = sorted(set(config.heads) - set(KINDS))
    if unknown:
        raise ValueError(f"the config names the head {unknown[0]!r}, and there is none; there are {sorted(KINDS)}")
    return nn.ModuleDict({name: KINDS[name](config, **arguments) for name, arguments in config.heads.items()})


def add_head(model: Any, name: str, **arguments: Any) -> None:
    """Give ``model`` the head ``name`` unless it has one.

    Raises:
        ValueError: it has one with other arguments, or is an existing vision-language model, which takes none.
    """
    heads = getattr(model.config, "heads", None)
    if heads is None:
        raise ValueError(
            f"{type(model).__name__} takes no head {name!r}: heads are kept in the checkpoints of our own architecture"
        )
    if name in heads:
        if heads[name] != arguments:
            raise ValueError(f"the model has a head {name!r} with {heads[name]}, the stage asks for {arguments}")
        return
    model.config.heads = {**heads, name: arguments}
    made = build_heads(model.config)[name]
    device = next(model.parameters()).device
    if not hasattr(model, "heads"):
        model.heads = nn.ModuleDict()
    model.heads[name] = made.to(device)
