"""Curriculum and Stage: one YAML file is one whole training, parsed at once into frozen types."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from medvlm.data_recipes.pack_plan import WINDOW
from medvlm.data_recipes.typed_yaml import BadConfig, Document, nearest, parse, to_yaml

Component = Literal["vision", "projector", "text"]
COMPONENTS: tuple[Component, ...] = ("vision", "projector", "text")
ROLES = ("attention", "mlp", "all")
"""What LoRA may adapt inside a component."""

PreferenceLoss = Literal["sigmoid", "ipo", "hinge", "robust"]


def _refuse(reason: str, mend: str) -> None:
    raise BadConfig(reason, where="configuration", mend=mend)


def _check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    if not low <= value <= high or math.isinf(value):
        limit = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        _refuse(f"{name} is {value:g}", f"use a number {limit}")


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where the weights of the first stage come from: a checkpoint, or parts that are put together.

    Attributes:
        pretrained: folder or hub id of a saved medvlm model or of an existing vision-language model; the other fields
            must then be empty, but ``processor`` may change the settings of an existing model (ExternalSettings).
        vision: fields of VisionConfig, or ``pretrained`` and arguments of ``model.pretrained.load_encoder``.
        projector: fields of ProjectorConfig.
        processor: arguments of the processor.
        text: ``{"config": {"model_type": ..., ...}}`` for random weights, or ``{"pretrained": id}``.
        tokenizer: ``{"train": {"vocab_size": n}}``, or ``{"pretrained": id}``, to which ``chat_template`` (chatml, or
            the path of a Jinja file) may be added.
    """

    pretrained: str | None = None
    vision: dict[str, Any] = field(default_factory=dict)
    projector: dict[str, Any] = field(default_factory=dict)
    processor: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] = field(default_factory=dict)
    tokenizer: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = {
            "vision": self.vision,
            "projector": self.projector,
            "text": self.text,
            "tokenizer": self.tokenizer,
        }
        if self.pretrained is not None:
            given = [name for name, part in parts.items() if part]
            if given:
                _refuse(
                    f"both 'pretrained' and {given[0]!r} are set",
                    "keep 'pretrained' (its config says what it is), or describe the parts without it",
                )
            return
        for name, keys in (("text", ("config", "pretrained")), ("tokenizer", ("train", "pretrained"))):
            part = dict(parts[name])
            if name == "tokenizer" and "pretrained" in part:
                part.pop("chat_template", None)
            if len(part) != 1 or next(iter(part)) not in keys:
                _refuse(
                    f"{name!r} must hold one of {keys[0]!r} and {keys[1]!r}, got {sorted(part) or 'nothing'}",
                    f"write `{name}: {{{keys[0]}: ...}}` or `{{{keys[1]}: ...}}`, or set 'pretrained'",
                )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How samples become packs.

    Attributes:
        root: folder that manifests of the stages are relative to.
        tokens_per_pack: most tokens in one pack (one forward pass of one process).
        patches_per_pack: most patches in one pack.
        cache: keep processed visuals on disk, in the run folder.
        cache_gib: most GiB of them; the least recently used go first. None: no limit.
        shard_cache: folder for copies of remote shards that all processes of a machine share; None reads byte ranges.
        shard_cache_gib: most GiB of them; the least recently used go first.
        workers: processes of each rank that read and decode; 0 reads in a thread. Packs are the same for any number.
        window: samples that are measured and packed together.
        quarantine_limit: largest share of the samples met that may be left out before the training stops.
    """

    root: str
    tokens_per_pack: int = 4096
    patches_per_pack: int = 8192
    cache: bool = False
    cache_gib: float | None = None
    shard_cache: str | None = None
    shard_cache_gib: float = 64.0
    workers: int = 0
    window: int = WINDOW
    quarantine_limit: float = 0.1

    def __post_init__(self) -> None:
        _check_range("tokens_per_pack", self.tokens_per_pack, 1)
        _check_range("patches_per_pack", self.patches_per_pack, 1)
        _check_range("shard_cache_gib", self.shard_cache_gib, 1e-6)
        _check_range("workers", self.workers, 0)
        _check_range("window", self.window, 1)
        _check_range("quarantine_limit", self.quarantine_limit, 0, 1)
        if self.cache_gib is not None:
            _check_range("cache_gib", self.cache_gib, 1e-6)
            if not self.cache:
                _refuse("cache_gib is set, but there is no cache", "set data.cache: true, or remove cache_gib")


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """What moves the weights.

    Attributes:
        kind: "deepspeed" (ZeRO), or "accelerate" (one device, or data parallel).
        zero_stage: what ZeRO partitions (Rajbhandari et al. 2020): 0 nothing, 1 optimizer state, 2 also
            gradients,
            3 also weights. Only for deepspeed.
        precision: "fp32", or "bf16": weights in bf16 with fp32 masters (deepspeed), autocast (accelerate).
        offload: keep optimizer state in host memory. Only for deepspeed with zero_stage of 1 or more.
        gradient_clip: largest global L2 norm of the gradient; 0 does not clip.
        device: "auto" takes CUDA when there is one.
        activation_checkpointing: compute activations again in the backward pass instead of keeping them.
    """

    kind: Literal["deepspeed", "accelerate"] = "accelerate"
    zero_stage: Literal[0, 1, 2, 3] = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    offload: bool = False
    gradient_clip: float = 1.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        _check_range("gradient_clip", self.gradient_clip, 0)
        if self.kind == "accelerate" and (self.zero_stage or self.offload):
            name = "zero_stage" if self.zero_stage else "offload"
            _refuse(f"{name} is set, but the engine is 'accelerate', which has no ZeRO", "use kind: deepspeed")
        if self.kind == "deepspeed" and self.zero_stage == 0 and self.precision == "bf16":
            _refuse(
                "DeepSpeed trains ZeRO stage 0 in bf16 with another optimizer wrapper than stages 1 to 3, and "
                "its losses differ from theirs",
                "use zero_stage: 1 (equal memory on one process), or precision: fp32",
            )
        if self.offload and self.zero_stage == 0:
            _refuse("offload needs ZeRO", "use zero_stage: 1, 2 or 3, or offload: false")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One manifest of a mixture; ``weight`` is its share of the samples, relative to the others."""

    manifest: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            _refuse(
                f"weight of {self.manifest!r} is {self.weight:g}",
                "use a number above 0, or remove the manifest from the mixture",
            )


@dataclass(frozen=True, kw_only=True)
class LearningRates:
    """Peak learning rate of each component; None freezes it."""

    vision: float | None = None
    projector: float | None = None
    text: float | None = None

    def __post_init__(self) -> None:
        for name, rate in self.of_components().items():
            if not 0 < rate < 1:
                _refuse(f"learning rate of {name!r} is {rate:g}", "use a number between 0 and 1; null freezes")

    def of_components(self) -> dict[str, float]:
        """Component -> peak learning rate, of those that are trained."""
        return {name: rate for name, rate in asdict(self).items() if rate is not None}


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
        _check_range("rank", self.rank, 1)
        _check_range("dropout", self.dropout, 0, 0.95)
        if not 0 < self.learning_rate < 1:
            _refuse(f"LoRA learning_rate is {self.learning_rate:g}", "use a number between 0 and 1")
        if not self.targets:
            _refuse("LoRA has no targets", "name some, such as text.attention, or remove 'lora'")
        known = [f"{component}.{role}" for component in COMPONENTS for role in ROLES]
        for target in self.targets:
            if target not in known:
                _refuse(f"unknown LoRA target {target!r}{nearest(target, known)}", f"use {', '.join(known)}")

    @property
    def components(self) -> tuple[str, ...]:
        """Components that are adapted, each once."""
        return tuple(dict.fromkeys(target.split(".")[0] for target in self.targets))


@dataclass(frozen=True, kw_only=True)
class PreferenceConfig:
    """Preference optimisation (DPO: Rafailov et al. 2023; IPO: Azar et al. 2023; robust DPO: Chowdhury et
    al. 2024).

    Attributes:
        beta: strength of the pull towards the reference model.
        label_smoothing: assumed share of flipped pairs.
        supervised_weight: weight of the token loss of the chosen answer, added to the preference loss.
    """

    beta: float = 0.1
    loss: PreferenceLoss = "sigmoid"
    label_smoothing: float = 0.0
    supervised_weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.beta < math.inf:
            _refuse(f"beta is {self.beta:g}", "use a number above 0, such as 0.1")
        _check_range("label_smoothing", self.label_smoothing, 0, 0.499)
        _check_range("supervised_weight", self.supervised_weight, 0)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a curriculum: what is trained, on what, for how long.

    Attributes:
        mixture: manifests and their weights.
        learning_rate: of each component; None freezes.
        lora: adapters, beside or instead of full training of other components.
        temperature: None: the weights of the mixture are its shares. A number T multiplies them by size ** (1 / T): 1
            draws in proportion to size, larger numbers flatten.
        steps: optimizer steps; or ``epochs``: passes over the mixture; or ``tokens``: of the decoder, over all
            processes, to the next whole step. Exactly one. Steps start at once; for the others every sample that will
            be seen is measured first.
        packs_per_step: packs that each process accumulates for one optimizer step.
        processor: settings of the processor that change from this stage on, such as ``max_patches``: a resolution
            ladder over the same files. The checkpoint of the stage keeps them.
        schedule: how the learning rate falls after the warmup.
        min_learning_rate_ratio: share of the peak that the schedule ends with.
        save_every: optimizer steps between two saved states; None saves at the end only.
        keep_checkpoints: saved states kept; older ones are removed.
    """

    name: str
    mixture: tuple[Source, ...]
    objective: Literal["supervised", "preference"] = "supervised"
    learning_rate: LearningRates = field(default_factory=LearningRates)
    lora: Lora | None = None
    temperature: float | None = None
    steps: int | None = None
    epochs: float | None = None
    tokens: int | None = None
    packs_per_step: int = 1
    processor: dict[str, Any] = field(default_factory=dict)
    schedule: Literal["cosine", "constant", "linear"] = "cosine"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    min_learning_rate_ratio: float = 0.0
    preference: PreferenceConfig | None = None
    save_every: int | None = None
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        if not self.name or not all(c.isalnum() or c in "-_" for c in self.name) or self.name.isdigit():
            _refuse(
                f"stage name {self.name!r} cannot name a folder and be addressed by overrides",
                "use letters, digits, - and _, with at least one letter",
            )
        self._check_trained()
        self._check_duration()
        _check_range("packs_per_step", self.packs_per_step, 1)
        _check_range("weight_decay", self.weight_decay, 0)
        _check_range("min_learning_rate_ratio", self.min_learning_rate_ratio, 0, 1)
        _check_range("keep_checkpoints", self.keep_checkpoints, 1)
        for beta in self.betas:
            _check_range("betas", beta, 0, 0.99999)
        if self.save_every is not None:
            _check_range("save_every", self.save_every, 1)
        if self.temperature is not None:
            _check_range("temperature", self.temperature, 0.01)
        if not self.mixture:
            _refuse("the mixture is empty", "name at least one manifest: `mixture: [{manifest: train.jsonl}]`")
        if self.objective == "preference" and (self.lora is None or self.learning_rate.of_components()):
            # Adapters off is the reference only while nothing else moves.
            _refuse(
                "a preference stage trains more than adapters, so that adapters off would not be the reference"
                if self.lora is not None
                else "a preference stage has no 'lora', so that it has no reference",
                "add 'lora' and leave every learning_rate null",
            )
        if self.objective == "preference" and self.preference is None:
            object.__setattr__(self, "preference", PreferenceConfig())
        if self.objective == "supervised" and self.preference is not None:
            _refuse("'preference' is set, but the objective is 'supervised'", "use objective: preference")

    def _check_trained(self) -> None:
        trained = self.learning_rate.of_components()
        if not trained and self.lora is None:
            _refuse(
                "the stage trains nothing: every learning rate is null and there is no LoRA",
                "set learning_rate.projector (or vision, text), or add 'lora'",
            )
        for component in self.lora.components if self.lora else ():
            if component in trained:
                _refuse(
                    f"{component!r} is trained in full and by LoRA",
                    f"set learning_rate.{component}: null, or remove its LoRA targets",
                )

    def _check_duration(self) -> None:
        given = [name for name in ("steps", "epochs", "tokens") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(repr(name) for name in given)
            _refuse(
                f"both {found} are set" if given else "neither 'steps' nor 'epochs' nor 'tokens' is set",
                "set exactly one of them",
            )
        if self.tokens is not None:
            _check_range("tokens", self.tokens, 1)
        if self.epochs is not None and not 0 < self.epochs < math.inf:
            _refuse(f"epochs is {self.epochs:g}", "use a number above 0")
        _check_range("warmup_steps", self.warmup_steps, 0)
        if self.steps is not None:
            _check_range("steps", self.steps, 1)
            if self.warmup_steps > self.steps:
                _refuse(
                    f"warmup_steps is {self.warmup_steps}, but the stage has {self.steps} steps",
                    f"use warmup_steps of at most {self.steps}",
                )

    def peak_learning_rates(self) -> dict[str, float]:
        """Component -> peak learning rate of all that is trained; adapters are the component "lora"."""
        rates = self.learning_rate.of_components()
        return rates | {"lora": self.lora.learning_rate} if self.lora else rates


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is asked of the model after training.

    Attributes:
        manifests: of evaluation samples, relative to ``data.root``.
        samples_per_manifest: ask only so many, spread over the manifest; None asks all.
        control_reports: reports asked under each control condition; None asks all.
        max_new_tokens: longest answer.
        batch_size: prompts answered at once.
    """

    manifests: tuple[str, ...]
    samples_per_manifest: int | None = None
    control_reports: int | None = None
    max_new_tokens: int = 128
    batch_size: int = 32

    def __post_init__(self) -> None:
        if not self.manifests:
            _refuse("'manifests' is empty", "name at least one manifest, or remove 'evaluation'")
        _check_range("max_new_tokens", self.max_new_tokens, 1)
        _check_range("batch_size", self.batch_size, 1)
        if self.samples_per_manifest is not None:
            _check_range("samples_per_manifest", self.samples_per_manifest, 1)
        if self.control_reports is not None:
            _check_range("control_reports", self.control_reports, 0)


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """One whole training.

    Attributes:
        output_dir: run folder; relative paths are relative to the working directory.
        seed: of weights, order of samples and dropout.
    """

    name: str
    output_dir: str
    model: ModelSource
    data: DataConfig
    stages: tuple[Stage, ...]
    seed: int = 0
    engine: EngineConfig = field(default_factory=EngineConfig)
    evaluation: EvaluationConfig | None = None

    def __post_init__(self) -> None:
        if not self.stages:
            _refuse("'stages' is empty", "write at least one stage")
        names = [stage.name for stage in self.stages]
        for name in names:
            if names.count(name) > 1:
                _refuse(f"{names.count(name)} stages are called {name!r}", "give every stage its own name")
        _check_range("seed", self.seed, 0, 2**32 - 1)
        for stage in self.stages:
            if stage.lora is not None and stage.lora.quantize is not None and self.engine.zero_stage == 3:
                _refuse(
                    f"stage {stage.name!r} quantises frozen weights, and ZeRO-3 partitions them: it would cut 4-bit "
                    "weights from the scales that they need",
                    "use zero_stage: 2 (frozen 4-bit weights are small), or lora.quantize: null",
                )

    def stage(self, name: str) -> Stage:
        """The stage called ``name``.

        Raises:
            BadConfig: there is none.
        """
        names = [stage.name for stage in self.stages]
        if name not in names:
            _refuse(f"no stage {name!r}{nearest(name, names)}", f"use one of {', '.join(names)}")
        return self.stages[names.index(name)]


def load_curriculum(path: str | Path, overrides: Iterable[str] = ()) -> Curriculum:
    """Read ``path`` and apply ``overrides`` such as ``stages.align.steps=10`` or
    ``model.vision.hidden_size=64``.

    Raises:
        BadConfig: names file and line (or the override), the dotted key, what was expected and the mend.
    """
    document = Document(path)
    for override in overrides:
        document.override(override)
    return parse(Curriculum, document)


def dump(curriculum: Curriculum) -> str:
    """The resolved YAML, with every default written out; ``load_curriculum`` reads it back equal."""
    return to_yaml(curriculum)


def fingerprint(curriculum: Curriculum, stage: str | None = None) -> str:
    """SHA-256 (hex) of everything that may change the weights.

    Left out are where files lie (``output_dir``, ``data.root``), cache, workers, evaluation, and
    how often states are saved: a training may be resumed after these change. What the samples hold is the
    business of the fingerprint of the data.

    Args:
        stage: cover the stages up to and including this one; None covers all.
    """
    names = [s.name for s in curriculum.stages]
    count = len(names) if stage is None else names.index(curriculum.stage(stage).name) + 1
    stages = tuple(replace(s, save_every=None, keep_checkpoints=1) for s in curriculum.stages[:count])
    plain = asdict(replace(curriculum, stages=stages, evaluation=None, output_dir=""))
    for key in ("root", "cache", "cache_gib", "shard_cache", "shard_cache_gib", "workers", "quarantine_limit"):
        del plain["data"][key]
    # Trainings from before a setting keep their fingerprint.
    if plain["data"]["window"] == WINDOW:
        del plain["data"]["window"]
    for done in plain["stages"]:
        for key in ("processor", "temperature", "tokens"):
            if not done[key]:
                del done[key]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
