"""Heads beside the language model: small maps that an objective adds to a model and that its checkpoint keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from medvlm.model.config import MedVLMConfig
from medvlm.model.head_contrastive import ContrastiveHead
from medvlm.model.head_findings import FindingsHead, ProgressionHead
from medvlm.model.head_triplets import TripletsHead
from medvlm.model.head_unpaired import UnpairedHead

KINDS: dict[str, Callable[..., nn.Module]] = {
    "contrastive": ContrastiveHead,
    "findings": FindingsHead,
    "progression": ProgressionHead,
    "triplets": TripletsHead,
    "unpaired": UnpairedHead,
}
"""Name of a head -> what makes it from (config of the model, its arguments)."""


def build_heads(config: MedVLMConfig) -> nn.ModuleDict:
    """The heads that ``config.heads`` names, with random weights.

    Raises:
        ValueError: a head that there is not.
    """
    return nn.ModuleDict({name: _make(config, name, arguments) for name, arguments in config.heads.items()})


def add_head(model: Any, name: str, **arguments: Any) -> bool:
    """Give ``model`` the head ``name`` unless it has one.

    Args:
        arguments: of the head; plain JSON, because they are kept in the config.

    Returns:
        Whether it is new, and its weights random.

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
            raise ValueError(
                f"the model has a head {name!r} with {heads[name]}, the stage asks for {arguments}; give the stage the "
                "settings that the head was made with, or start from a checkpoint without it"
            )
        return False
    with torch.device(next(model.parameters()).device):
        made = _make(model.config, name, arguments)
    model.config.heads = {**heads, name: arguments}
    if not hasattr(model, "heads"):
        model.heads = nn.ModuleDict()
    model.heads[name] = made
    return True


def _make(config: MedVLMConfig, name: str, arguments: dict[str, Any]) -> nn.Module:
    if name not in KINDS:
        raise ValueError(f"the config names the head {name!r}, and there is none; there are {sorted(KINDS)}")
    return KINDS[name](config, **arguments)
