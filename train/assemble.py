"""Curriculum and stage -> model, processor, and exactly the parameters that the stage trains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from medvlm.data_recipes.sample import Sample
from medvlm.model.chat_template import require_chat_template
from medvlm.model.config import own_projector_config
from medvlm.model.loading import (
    Model,
    Processor,
    build_config,
    build_model,
    checkpoint_config,
    load_checkpoint,
    load_processor,
)
from medvlm.model.medvlm import COMPONENTS
from medvlm.model.pretrained import vision_config
from medvlm.model.processing import MedVLMProcessor
from medvlm.model.tokenizer import add_visual_token, set_chat_template, train_tokenizer, vocabulary_size
from medvlm.train.config import Curriculum, Stage
from medvlm.train.data import open_rows
from medvlm.train.lora import add_lora
from medvlm.train.stage_heads import add_stage_heads, idle


def first_processor(curriculum: Curriculum) -> Processor:
    """The processor of the whole curriculum; trains the tokenizer when the configuration says so."""
    source = curriculum.model
    if source.pretrained is not None:
        with _reading(curriculum):
            return load_processor(source.pretrained, source.processor)
    tokenizer: PreTrainedTokenizerBase
    if "train" in source.tokenizer:
        tokenizer = train_tokenizer(_texts(curriculum), **source.tokenizer["train"])
    else:
        with _reading(curriculum):
            tokenizer = AutoTokenizer.from_pretrained(source.tokenizer["pretrained"])
        if "chat_template" in source.tokenizer:
            set_chat_template(tokenizer, source.tokenizer["chat_template"])
        require_chat_template(tokenizer)
    add_visual_token(tokenizer)
    with _reading(curriculum):
        vision, projector = vision_config(source.vision), own_projector_config(source.projector)
    sizes = {"patch_size": vision.patch_size, "merge": projector.merge, "projector": projector.token_rule()}
    return MedVLMProcessor(tokenizer, **sizes, **source.processor)


def first_config(curriculum: Curriculum, processor: Processor) -> PretrainedConfig:
    """The config of the model that the first stage starts from; no weights are read.

    Raises:
        ValueError: ``model.pretrained`` is a checkpoint of another architecture.
    """
    source = curriculum.model
    if source.pretrained is not None:
        with _reading(curriculum):
            return checkpoint_config(source.pretrained)
    size, token = vocabulary_size(processor.tokenizer), processor.visual_token_id
    with _reading(curriculum):
        return build_config(source.vision, source.projector, source.text, size, token)


def first_model(curriculum: Curriculum) -> tuple[Model, Processor]:
    """The model that the first stage starts from: loaded, or put together as the configuration says.

    Seed torch before: random parts follow its state.
    """
    source = curriculum.model
    if source.pretrained is not None:
        with _reading(curriculum):
            return load_checkpoint(source.pretrained)[0], load_processor(source.pretrained, source.processor)
    processor = first_processor(curriculum)
    size, token = vocabulary_size(processor.tokenizer), processor.visual_token_id
    with _reading(curriculum):
        model = build_model(source.vision, source.projector, source.text, size, token)
    model.generation_config.eos_token_id = sorted(processor.end_ids)
    pad = processor.tokenizer.pad_token_id
    model.generation_config.pad_token_id = processor.tokenizer.eos_token_id if pad is None else pad
    return model, processor


@contextmanager
def _reading(curriculum: Curriculum) -> Iterator[None]:
    """Name what ``model`` reads when a library cannot: without a network it says neither the id nor the setting."""
    source = curriculum.model
    named = {
        "model.pretrained": source.pretrained,
        "model.vision.pretrained": source.vision.get("pretrained"),
        "model.text.pretrained": source.text.get("pretrained"),
        "model.tokenizer.pretrained": source.tokenizer.get("pretrained"),
    }
    try:
        yield
    except OSError as error:
        read = ", ".join(f"{key} {value!r}" for key, value in named.items() if value is not None)
        if not read:
            raise
        raise OSError(
            f"one of what the configuration reads cannot be read: {read} ({' '.join(str(error).split())}). Mend: check "
            "the name; an id needs a connection to its hub once (and a login, where its licence asks for one), "
            "or name a folder that holds the model"
        ) from error


def _texts(curriculum: Curriculum) -> Iterable[str]:
    """Every text of the training manifests, each manifest once: what the tokenizer is trained on."""
    manifests = dict.fromkeys(source.manifest for stage in curriculum.stages for source in stage.mixture)
    for manifest in manifests:
        rows = open_rows(curriculum.data, manifest)
        for index in range(len(rows)):
            row = rows.row(index)
            if isinstance(row, Sample):
                for side in row.sides():
                    yield from (part for turn in side for part in turn.content if isinstance(part, str))


def component_of(model: Model, name: str) -> str:
    """The component that a parameter's learning rate follows: vision, projector, text, or lora."""
    return "lora" if "lora_" in name else model.component_of(name)


def set_trainable(model: Model, stage: Stage) -> dict[str, int]:
    """Freeze and unfreeze as ``stage`` says, add its heads and adapters, and assert that just these are trained.

    Returns:
        Component (or "lora") -> number of trained parameters.

    Raises:
        ValueError: a LoRA target matches nothing, or the model cannot have a head that the stage needs.
    """
    rates = stage.learning_rate.of_components()
    add_stage_heads(model, stage)
    unused = idle(model, stage)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(component_of(model, name) in rates and id(parameter) not in unused)
    if stage.lora is not None:
        add_lora(model, stage.lora)
    trained = trained_parameters(model)
    expected = set(rates) | ({"lora"} if stage.lora else set())
    if set(trained) != expected:
        raise AssertionError(f"stage {stage.name!r} should train {sorted(expected)}, but trains {sorted(trained)}")
    return trained


def trained_parameters(model: Model) -> dict[str, int]:
    """Component (or "lora") -> number of parameters that require a gradient."""
    trained: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            component = component_of(model, name)
            trained[component] = trained.get(component, 0) + parameter.numel()
    return trained


def parameters(model: Model) -> dict[str, int]:
    """Component -> number of parameters."""
    counts = dict.fromkeys(COMPONENTS, 0)
    for name, parameter in model.named_parameters():
        component = model.component_of(name)
        counts[component] = counts.get(component, 0) + parameter.numel()
    return counts
