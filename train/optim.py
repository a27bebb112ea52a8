"""Parameter groups and learning-rate schedules: plain functions of the configuration and the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from torch import nn

Schedule = Literal["cosine", "constant", "linear"]

_NEVER_DECAYED = ("bias", ".table", ".prefix", ".slots", ".queries.table.weight")
"""Besides vectors: learned positions, class tokens and queries are no weights of a product (timm's no_weight_decay)."""


def parameter_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    component_of: Callable[[str], str],
    learning_rates: Mapping[str, float],
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.95),
) -> list[dict[str, Any]]:
    """Groups for AdamW (Loshchilov & Hutter 2019), named "component.decay" and "component.no_decay".

    Vectors and scalars (biases, norm gains) are not decayed: decay is a prior on matrices. Frozen parameters
    are left out. Groups come in a fixed order, so that ranks and resumed runs agree.

    Args:
        named_parameters: of the model, before any engine wraps it.
        component_of: parameter name -> component.
        learning_rates: component -> peak learning rate.

    Raises:
        ValueError: a trainable parameter whose component has no learning rate, a component with a learning
            rate
            and no trainable parameter, or nothing to train.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        component = component_of(name)
        if component not in learning_rates:
            raise ValueError(
                f"parameter {name!r} is trainable, but its component {component!r} has no learning rate; "
                f"freeze it (requires_grad_(False)) or add it to {sorted(learning_rates)}"
            )
        decay = parameter.ndim > 1 and not name.endswith(_NEVER_DECAYED)
        group = f"{component}.{'decay' if decay else 'no_decay'}"
        entry = found.setdefault(
            group,
            {
                "params": [],
                "name": group,
                "component": component,
                "lr": learning_rates[component],
                "weight_decay": weight_decay if decay else 0.0,
                "betas": betas,
            },
        )
        entry["params"].append(parameter)
    trained = {group["component"] for group in found.values()}
    for component in learning_rates:
        if component not in trained:
            raise ValueError(
                f"component {component!r} has learning rate {learning_rates[component]:g} but no trainable "
                "parameter; unfreeze it, or set its learning rate to null"
            )
    if not found:
        raise ValueError("nothing to train: no parameter requires a gradient; set a learning rate or add LoRA")
    return [found[name] for name in sorted(found)]


def learning_rate_at(
    step: int, *, schedule: Schedule, total_steps: int, warmup_steps: int = 0, minimum_ratio: float = 0.0
) -> float:
    """Share of the peak learning rate for optimizer step ``step``, which counts from 0.

    Warmup is linear and its first step is not wasted on a rate of 0; then the rate is constant, or falls
    along a straight line or half a cosine (Loshchilov & Hutter 2017) to ``minimum_ratio`` at the last step.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return 1.0
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps))
    falling = 1.0 - progress if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return minimum_ratio + (1.0 - minimum_ratio) * falling


def scaled_learning_rates(groups: Sequence[Mapping[str, Any]], factor: float) -> dict[str, float]:
    """Group name -> learning rate: the peak that the group was made with, times ``factor``.

    Call it with the groups of ``parameter_groups``; keep them apart from the optimizer's own copies.
    """
    return {group["name"]: group["lr"] * factor for group in groups}


def set_learning_rates(
    param_groups: Sequence[dict[str, Any]], names: Sequence[str], learning_rates: Mapping[str, float]
) -> None:
    """Write the learning rate of each group into an optimizer.

    Groups are told apart by their place, not by a name inside: DeepSpeed rebuilds groups when it loads a state, and
    was seen to give all of them the rate of one. Setting them at every step makes what was loaded irrelevant.

    Raises:
        ValueError: a group without a learning rate, or a learning rate without a group.
    """
    if len(param_groups) != len(names) or set(names) != set(learning_rates):
        raise ValueError(
            f"learning rates are given for {sorted(learning_rates)}, the optimizer has {len(param_groups)} groups "
            f"named {sorted(names)}; make both from the same parameter_groups"
        )
    for group, name in zip(param_groups, names, strict=True):
        group["lr"] = learning_rates[name]
