"""Activation checkpointing (Chen et al. 2016, arXiv:1604.06174) of the components that a gradient passes through."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import get_args

from torch import nn
from torch.utils.checkpoint import checkpoint

from medvlm.model.loading import Model
from medvlm.train.lora import component_of
from medvlm.train.settings.engine import Part


def checkpoint_activations(model: Model, setting: bool | Iterable[Part]) -> list[str]:
    """Let the layers of the components in ``setting`` (true: of all) compute their activations again.

    A frozen component that lies before all that trains keeps no activations, and is left alone.

    Returns:
        The components that do, for the narration.
    """
    wanted = set(get_args(Part) if setting is True else setting or ())
    wanted &= passed_by_gradients(model)
    found = set()
    for name, module in model.named_modules():
        component = component_of(model, name)
        if component in wanted and hasattr(module, "gradient_checkpointing"):
            module._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)  # type: ignore[assignment]
            module.gradient_checkpointing = True  # type: ignore[assignment]
            found.add(component)
    return sorted(found)


def passed_by_gradients(model: nn.Module) -> set[str]:
    """Components that a gradient passes through: those that train, and the decoder behind a projector that does."""
    trained = {component_of(model, name) for name, p in model.named_parameters() if p.requires_grad}
    return trained | ({"text"} if trained & {"vision", "projector"} else set())
