"""The heads that a stage needs, and what of the model its objective does not run."""

from __future__ import annotations

from typing import Any

import torch

from medvlm.model.heads import add_head
from medvlm.model.loading import Model
from medvlm.train.config import Stage


def heads_of(stage: Stage) -> dict[str, dict[str, Any]]:
    """Name of each head that ``stage`` trains -> its arguments, which stay in the config of the checkpoint."""
    heads: dict[str, dict[str, Any]] = {}
    if stage.contrastive is not None:
        config = stage.contrastive
        heads["contrastive"] = {
            "size": config.size, "pooling": config.pooling, "reads": config.text, "bias": config.bias is not None,
        }  # fmt: skip
    for loss in stage.auxiliary:
        names = list(loss.findings)
        if loss.kind == "triplets":
            heads["triplets"] = {
                "entities": names, "positions": list(loss.positions), "size": loss.size, "layers": loss.layers,
            }  # fmt: skip
        elif loss.kind == "unpaired":
            heads["unpaired"] = {"findings": names, "size": loss.size, "pooling": loss.pooling}
        else:
            heads[loss.kind] = {"findings": names, "pooling": loss.pooling}
    return heads


def add_stage_heads(model: Model, stage: Stage) -> None:
    """Add the heads that ``model`` has not got from an earlier stage.

    Raises:
        ValueError: it has one with other arguments, or takes none.
    """
    for name, arguments in heads_of(stage).items():
        if add_head(model, name, **arguments) and name == "contrastive":
            assert stage.contrastive is not None
            with torch.no_grad():
                model.heads[name].log_scale.fill_(stage.contrastive.log_scale)  # type: ignore[union-attr, operator, index]
                if stage.contrastive.bias is not None:
                    model.heads[name].logit_bias.fill_(stage.contrastive.bias)  # type: ignore[union-attr, operator, index]


def idle(model: Model, stage: Stage) -> set[int]:
    """Ids of parameters that no loss of ``stage`` reaches: they must be frozen, or ranks would wait for their gradient.

    These are heads of other stages, and, where texts are read and not written, the output layer.
    """
    needed = heads_of(stage)
    found = {
        id(parameter)
        for name, parameter in model.named_parameters()
        if model.component_of(name) == "heads" and name.split(".")[1] not in needed
    }
    output = model.get_output_embeddings()
    if stage.objective == "contrastive" and output is not None:
        embedding = {id(parameter) for parameter in model.get_input_embeddings().parameters()}
        found |= {id(parameter) for parameter in output.parameters()} - embedding
    return found
