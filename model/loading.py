"""Folder or hub id -> model and processor; building from configs; saving whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    PretrainedConfig,
)

from medvlm.model.config import MedVLMConfig, VisionConfig
from medvlm.model.external.families import is_served, served
from medvlm.model.external.processing import ExternalProcessor
from medvlm.model.external.shell import ExternalVLM
from medvlm.model.medvlm import MedVLMForConditionalGeneration
from medvlm.model.pretrained import fill_pretrained, vision_config
from medvlm.model.processing import MedVLMProcessor
from medvlm.model.vocabulary import grow_vocabulary

CONFIG_FILE = "config.json"

Model = MedVLMForConditionalGeneration | ExternalVLM
Processor = MedVLMProcessor | ExternalProcessor
"""Ours, or an existing vision-language model behind the same interface; a checkpoint's config says which."""


def register() -> None:
    """Let AutoConfig, AutoProcessor and AutoModelForImageTextToText know medvlm; done by ``import medvlm.model``."""
    AutoConfig.register(VisionConfig.model_type, VisionConfig, exist_ok=True)
    AutoConfig.register(MedVLMConfig.model_type, MedVLMConfig, exist_ok=True)
    AutoModelForImageTextToText.register(MedVLMConfig, MedVLMForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(MedVLMConfig, MedVLMProcessor, exist_ok=True)


def checkpoint_config(source: str | Path) -> PretrainedConfig:
    """The config of a checkpoint folder or hub id, without its weights.

    Raises:
        FileNotFoundError: a local path without config.json.
        ValueError: the checkpoint is neither one of ours nor of a vision-language family that is served.
    """
    local = Path(source)
    if (local.exists() or str(source).startswith((".", os.sep))) and not (local / CONFIG_FILE).is_file():
        raise FileNotFoundError(
            f"{source} holds no {CONFIG_FILE}; expected a checkpoint folder such as "
            "runs/NAME/stages/05-dpo/checkpoint, or a hub id"
        )
    config = AutoConfig.from_pretrained(source)
    if not isinstance(config, MedVLMConfig) and not is_served(config):
        raise ValueError(
            f"{source} is a {config.model_type!r} checkpoint, expected {MedVLMConfig.model_type!r}, or an existing "
            f"vision-language model: {served()}; to use a language model as decoder set model.text.pretrained: "
            f"{source} in the training config"
        )
    return config


def load_processor(source: str | Path, settings: dict[str, Any] | None = None) -> Processor:
    """The processor of a checkpoint folder or hub id.

    Args:
        settings: fields of ExternalSettings over the saved ones, for an existing vision-language model.

    Raises:
        ValueError: settings for a checkpoint of ours, whose processor is saved with it.
    """
    if not isinstance(checkpoint_config(source), MedVLMConfig):
        return ExternalProcessor.from_pretrained(source, **(settings or {}))
    if settings:
        raise ValueError(
            f"model.processor is set ({', '.join(sorted(settings))}), but {source} was saved with its processor; "
            "remove model.processor"
        )
    return MedVLMProcessor.from_pretrained(source)


def empty_model(config: PretrainedConfig) -> Model:
    """The model of ``config`` without weights: shapes only, so that a 32 B model is planned on a laptop."""
    with torch.device("meta"):
        if isinstance(config, MedVLMConfig):
            return MedVLMForConditionalGeneration(config)
        return ExternalVLM.from_config(config)


def load_checkpoint(
    source: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> tuple[Model, Processor]:
    """Load model (eval mode) and processor from a checkpoint folder or hub id; in fp32 unless ``dtype`` says otherwise.

    Raises:
        FileNotFoundError: a local path without config.json.
        ValueError: the checkpoint is of another architecture, or its weights do not fit its config.
    """
    if not isinstance(checkpoint_config(source), MedVLMConfig):
        return _load_external(source, device, dtype)
    loaded: tuple[Any, dict[str, Any]] = MedVLMForConditionalGeneration.from_pretrained(  # type: ignore[assignment]
        source, dtype=dtype or torch.float32, output_loading_info=True
    )
    model, report = loaded
    wrong = {key: sorted(report[key]) for key in ("missing_keys", "unexpected_keys") if report.get(key)}
    if report.get("mismatched_keys"):
        wrong["mismatched_keys"] = sorted(str(key) for key in report["mismatched_keys"])
    if wrong:
        raise ValueError(f"the weights of {source} do not fit its config: {wrong}; the checkpoint is damaged")
    processor = MedVLMProcessor.from_pretrained(source)
    _check_agree(model.config, processor, source)
    return model.to(device).eval(), processor


def _check_agree(config: MedVLMConfig, processor: MedVLMProcessor, source: str | Path) -> None:
    """Raise ValueError when the processor cuts or counts visuals in another way than the model reads them."""
    vision, projector = config.vision_config, config.projector_config
    read = {"patch_size": vision.patch_size, "merge": projector.merge, "projector": projector.token_rule()}
    for name, expected in read.items():
        found = getattr(processor, name)
        if found != expected:
            raise ValueError(
                f"the processor saved in {source} has {name} {found}, but its model {expected}; the folder was put "
                "together from two checkpoints: copy processor_config.json from the one that config.json came from"
            )


def _load_external(
    source: str | Path, device: str | torch.device, dtype: torch.dtype | None
) -> tuple[ExternalVLM, ExternalProcessor]:
    model, processor = ExternalVLM.from_pretrained(source, dtype=dtype), ExternalProcessor.from_pretrained(source)
    stated = model.generation_config.eos_token_id
    listed = stated if isinstance(stated, list) else [] if stated is None else [stated]
    # A base checkpoint may not know the token that its chat template ends a turn with.
    model.generation_config.eos_token_id = sorted({*listed, *processor.end_ids})
    return model.to(device).eval(), processor


def build_config(
    vision: dict[str, Any], projector: dict[str, Any], text: dict[str, Any], vocab_size: int, visual_token_id: int
) -> MedVLMConfig:
    """The config of ``build_model``, without any weights.

    Args:
        vision: arguments of VisionConfig, or a pretrained encoder; see ``pretrained.vision_config``.
        projector: arguments of ProjectorConfig.
        text: {"config": {"model_type": ..., ...}} or {"pretrained": folder or hub id}.
        vocab_size: of the tokenizer with the placeholder; a smaller pretrained embedding grows to it.
    """
    if set(text) - {"config", "pretrained"} or len(text) != 1:
        raise ValueError(f"model.text needs exactly one of 'config' and 'pretrained', got {sorted(text)}")
    if "pretrained" in text:
        text_config = AutoConfig.from_pretrained(text["pretrained"])
        text_config.vocab_size = max(text_config.vocab_size, vocab_size)
    else:
        # Phi's default pad id lies outside of a small vocabulary, and torch then refuses to make the embedding.
        text_config = {"vocab_size": vocab_size, "pad_token_id": None, **text["config"]}
    _refuse_router_loss(text_config)
    return MedVLMConfig(
        vision_config=vision_config(vision),
        projector_config=projector,
        text_config=text_config,
        visual_token_id=visual_token_id,
    )


def _refuse_router_loss(text_config: Any) -> None:
    values = text_config if isinstance(text_config, dict) else text_config.to_dict()
    if values.get("output_router_logits"):
        raise ValueError(
            "the decoder's config sets output_router_logits, but the balancing loss of a mixture of experts is not "
            "trained here: it is a mean over a pack, so that the gradient would depend on how samples are packed; set "
            "output_router_logits: false"
        )


def build_model(
    vision: dict[str, Any], projector: dict[str, Any], text: dict[str, Any], vocab_size: int, visual_token_id: int
) -> MedVLMForConditionalGeneration:
    """A model with a random projector, and encoder and decoder random or pretrained; see ``build_config``."""
    config = build_config(vision, projector, text, vocab_size, visual_token_id)
    model = MedVLMForConditionalGeneration(config)
    fill_pretrained(model.vision, vision)
    if "pretrained" in text:
        decoder = AutoModelForCausalLM.from_pretrained(text["pretrained"], dtype=torch.float32)
        grow_vocabulary(decoder, vocab_size)
        model.text.load_state_dict(decoder.state_dict())
    return model


def save_checkpoint(
    folder: str | Path,
    model: Model,
    processor: Processor,
    state_dict: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Write a Hugging Face folder under a temporary name and rename it, so that a half-written one is never seen."""
    folder = Path(folder)
    temporary = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary, state_dict=state_dict)
    processor.save_pretrained(temporary)
    for path in temporary.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    if folder.exists():
        old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
        folder.rename(old)
        temporary.rename(folder)
        shutil.rmtree(old)
    else:
        temporary.rename(folder)
    return folder
