"""A stage's own view of the same files: few tokens first, many later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from medvlm.model.external.processing import ExternalProcessor
from medvlm.model.external.settings import ExternalSettings
from medvlm.model.loading import Processor
from medvlm.model.processing import MedVLMProcessor
from medvlm.train.config import Stage

CHANGEABLE = ("max_patches", "max_depth", "intensity", "slices", "reduction", "position_gaps")
"""Arguments of MedVLMProcessor that a stage may change; the others belong to the weights (patch_size, merge)."""


def processor_of_stage(processor: Processor, changes: Mapping[str, Any]) -> Processor:
    """``processor`` with the changes of one stage; groups such as ``max_patches`` are changed key by key.

    Raises:
        ValueError: a setting that no stage may change, or a value that the processor refuses.
    """
    if not changes:
        return processor
    external = isinstance(processor, ExternalProcessor)
    allowed = [field.name for field in fields(ExternalSettings)] if external else list(CHANGEABLE)
    unknown = sorted(set(changes) - set(allowed))
    if unknown:
        raise ValueError(
            f"processor.{unknown[0]} cannot change between stages; use one of {', '.join(allowed)}, or set it in "
            "model.processor"
        )
    if isinstance(processor, ExternalProcessor):
        settings = replace(processor.settings, **_merged(asdict(processor.settings), changes))
        return ExternalProcessor(
            processor.config, processor.tokenizer, processor.image_processor, settings, processor.source
        )
    before = {name: getattr(processor, name) for name in (*CHANGEABLE, "patch_size", "merge", "projector")}
    after = before | _merged(before, changes)
    template: Any = processor.chat_template
    return MedVLMProcessor(processor.tokenizer, chat_template=template, **after)


def _merged(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changed settings; max_patches, max_depth, max_pixels and intensity keep the keys that are not named."""
    kept = ("max_patches", "max_depth", "max_pixels", "intensity")
    return {
        name: {**before[name], **value} if name in kept and isinstance(value, Mapping) else value
        for name, value in changes.items()
    }


def stage_processors(processor: Processor, stages: Iterable[Stage]) -> dict[str, Processor]:
    """Stage name -> its processor: what a stage changes stays changed in those after it.

    Raises:
        ValueError: as processor_of_stage; names the stage.
    """
    found: dict[str, Processor] = {}
    for stage in stages:
        try:
            processor = processor_of_stage(processor, stage.processor)
        except (ValueError, TypeError) as error:
            raise ValueError(f"stage {stage.name!r}: {error}") from error
        found[stage.name] = processor
    return found
