"""Curriculum and Stage: one YAML file is one whole training, parsed at once into frozen types."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from medvlm.data_recipes.typed_yaml import Document, nearest, parse, to_yaml
from medvlm.train.settings.auxiliary import AuxiliaryLoss, check_heads
from medvlm.train.settings.checks import aside, check_range, later, refuse
from medvlm.train.settings.contrastive import ContrastiveConfig
from medvlm.train.settings.data import DataConfig
from medvlm.train.settings.engine import EngineConfig
from medvlm.train.settings.lora import Lora
from medvlm.train.settings.preference import REFERENCE_FREE, PreferenceConfig
from medvlm.train.settings.reinforcement import ReinforcementConfig

TrackerName = Literal["tensorboard", "wandb", "mlflow"]
Objective = Literal["supervised", "preference", "contrastive", "reinforcement"]
SETTINGS_OF = {"preference": PreferenceConfig, "contrastive": ContrastiveConfig, "reinforcement": ReinforcementConfig}
"""Objective -> its settings, which stand in a field of the stage of the same name."""


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
                refuse(
                    f"both 'pretrained' and {given[0]!r} are set",
                    "keep 'pretrained' (its config says what it is), or describe the parts without it",
                )
            return
        for name, keys in (("text", ("config", "pretrained")), ("tokenizer", ("train", "pretrained"))):
            part = dict(parts[name])
            if name == "tokenizer" and "pretrained" in part:
                part.pop("chat_template", None)
            if len(part) != 1 or next(iter(part)) not in keys:
                refuse(
                    f"{name!r} must hold one of {keys[0]!r} and {keys[1]!r}, got {sorted(part) or 'nothing'}",
                    f"write `{name}: {{{keys[0]}: ...}}` or `{{{keys[1]}: ...}}`, or set 'pretrained'",
                )


@dataclass(frozen=True, kw_only=True)
class Source:
    """One manifest of a mixture; ``weight`` is its share of the samples, relative to the others."""

    manifest: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            refuse(
                f"weight of {self.manifest!r} is {self.weight:g}",
                "use a number above 0, or remove the manifest from the mixture",
            )


@dataclass(frozen=True, kw_only=True)
class LearningRates:
    """Peak learning rate of each component; None freezes it. Heads are what objectives add to the model."""

    vision: float | None = None
    projector: float | None = None
    text: float | None = None
    heads: float | None = later(None)

    def __post_init__(self) -> None:
        for name, rate in self.of_components().items():
            if not 0 < rate < 1:
                refuse(f"learning rate of {name!r} is {rate:g}", "use a number between 0 and 1; null freezes")

    def of_components(self) -> dict[str, float]:
        """Component -> peak learning rate, of those that are trained."""
        return {name: rate for name, rate in asdict(self).items() if rate is not None}


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
        evaluate_every: optimizer steps between two rounds of questions from ``evaluation``; None asks none.
        keep_checkpoints: saved states kept; older ones are removed.
        keep_every: states of every so many-th step are never removed; None: all old ones are.
        nonfinite_limit: updates in a row that may be left out because loss or gradient is no number; 0 stops at once.
    """

    name: str
    mixture: tuple[Source, ...]
    objective: Objective = "supervised"
    learning_rate: LearningRates = field(default_factory=LearningRates)
    lora: Lora | None = None
    temperature: float | None = later(None)
    steps: int | None = None
    epochs: float | None = None
    tokens: int | None = later(None)
    packs_per_step: int = 1
    processor: dict[str, Any] = field(default_factory=dict, metadata={"later": True})
    schedule: Literal["cosine", "constant", "linear"] = "cosine"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    min_learning_rate_ratio: float = 0.0
    preference: PreferenceConfig | None = None
    contrastive: ContrastiveConfig | None = later(None)
    reinforcement: ReinforcementConfig | None = later(None)
    auxiliary: tuple[AuxiliaryLoss, ...] = later(())
    save_every: int | None = None
    evaluate_every: int | None = aside(None)
    keep_checkpoints: int = 2
    keep_every: int | None = aside(None)
    nonfinite_limit: int = aside(3)

    def __post_init__(self) -> None:
        if not self.name or not all(c.isalnum() or c in "-_" for c in self.name) or self.name.isdigit():
            refuse(
                f"stage name {self.name!r} cannot name a folder and be addressed by overrides",
                "use letters, digits, - and _, with at least one letter",
            )
        self._check_trained()
        self._check_duration()
        check_range("packs_per_step", self.packs_per_step, 1)
        check_range("weight_decay", self.weight_decay, 0)
        check_range("min_learning_rate_ratio", self.min_learning_rate_ratio, 0, 1)
        check_range("keep_checkpoints", self.keep_checkpoints, 1)
        check_range("nonfinite_limit", self.nonfinite_limit, 0)
        if self.keep_every is not None:
            check_range("keep_every", self.keep_every, 1)
        for beta in self.betas:
            check_range("betas", beta, 0, 0.99999)
        if self.save_every is not None:
            check_range("save_every", self.save_every, 1)
        if self.evaluate_every is not None:
            check_range("evaluate_every", self.evaluate_every, 1)
        if self.temperature is not None:
            check_range("temperature", self.temperature, 0.01)
        if not self.mixture:
            refuse("the mixture is empty", "name at least one manifest: `mixture: [{manifest: train.jsonl}]`")
        self._fill_settings()
        adapted = self.lora.components if self.lora else ()
        check_heads(self.objective, self.learning_rate.of_components(), adapted, self.auxiliary)
        self._check_reference()
        self._check_reinforcement()

    def _fill_settings(self) -> None:
        """Give the objective its settings, and refuse those of another."""
        for name, kind in SETTINGS_OF.items():
            given = getattr(self, name)
            if name == self.objective and given is None:
                object.__setattr__(self, name, kind())
            elif name != self.objective and given is not None:
                refuse(f"{name!r} is set, but the objective is {self.objective!r}", f"use objective: {name}")

    def _check_reference(self) -> None:
        """Adapters off is the reference of a preference loss, and only while nothing else moves."""
        if self.preference is None or not self.preference.needs_reference:
            return
        if self.lora is None or self.learning_rate.of_components():
            refuse(
                "a preference stage trains more than adapters, so that adapters off would not be the reference"
                if self.lora is not None
                else "a preference stage has no 'lora', so that it has no reference",
                "add 'lora' and leave every learning_rate null, or use a loss without a reference: "
                f"{' or '.join(sorted(REFERENCE_FREE))}",
            )

    def _check_reinforcement(self) -> None:
        """The reference is the model with its adapters off; a frozen copy would double the memory of the weights."""
        if self.reinforcement is None:
            return
        if self.reinforcement.beta and (self.lora is None or self.learning_rate.of_components()):
            refuse(
                f"reinforcement.beta is {self.reinforcement.beta:g}, but there is no reference: it is the model with "
                "adapters off, and " + ("there is no 'lora'" if self.lora is None else "other weights are trained too"),
                "set beta: 0, or add 'lora' and leave every learning_rate null",
            )
        if self.lora is not None and self.lora.dropout:
            refuse(
                "lora.dropout would train on other probabilities than those that answers are sampled from",
                "set lora.dropout: 0",
            )

    def _check_trained(self) -> None:
        trained = self.learning_rate.of_components()
        if not trained and self.lora is None:
            refuse(
                "the stage trains nothing: every learning rate is null and there is no LoRA",
                "set learning_rate.projector (or vision, text), or add 'lora'",
            )
        for component in self.lora.components if self.lora else ():
            if component in trained:
                refuse(
                    f"{component!r} is trained in full and by LoRA",
                    f"set learning_rate.{component}: null, or remove its LoRA targets",
                )

    def _check_duration(self) -> None:
        given = [name for name in ("steps", "epochs", "tokens") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(repr(name) for name in given)
            refuse(
                f"both {found} are set" if given else "neither 'steps' nor 'epochs' nor 'tokens' is set",
                "set exactly one of them",
            )
        if self.tokens is not None:
            check_range("tokens", self.tokens, 1)
        if self.epochs is not None and not 0 < self.epochs < math.inf:
            refuse(f"epochs is {self.epochs:g}", "use a number above 0")
        check_range("warmup_steps", self.warmup_steps, 0)
        if self.steps is not None:
            check_range("steps", self.steps, 1)
            if self.warmup_steps > self.steps:
                refuse(
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
            refuse("'manifests' is empty", "name at least one manifest, or remove 'evaluation'")
        check_range("max_new_tokens", self.max_new_tokens, 1)
        check_range("batch_size", self.batch_size, 1)
        if self.samples_per_manifest is not None:
            check_range("samples_per_manifest", self.samples_per_manifest, 1)
        if self.control_reports is not None:
            check_range("control_reports", self.control_reports, 0)


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """One whole training.

    Attributes:
        output_dir: run folder; relative paths are relative to the working directory.
        seed: of weights, order of samples and dropout.
        tracking: what is told the numbers of each step besides metrics.jsonl.
    """

    name: str
    output_dir: str
    model: ModelSource
    data: DataConfig
    stages: tuple[Stage, ...]
    seed: int = 0
    engine: EngineConfig = field(default_factory=EngineConfig)
    evaluation: EvaluationConfig | None = None
    tracking: tuple[TrackerName, ...] = aside(())

    def __post_init__(self) -> None:
        if not self.stages:
            refuse("'stages' is empty", "write at least one stage")
        names = [stage.name for stage in self.stages]
        for name in names:
            if names.count(name) > 1:
                refuse(f"{names.count(name)} stages are called {name!r}", "give every stage its own name")
        check_range("seed", self.seed, 0, 2**32 - 1)
        for stage in self.stages:
            self._check_evaluated(stage)
            if self.engine.sequence_parallel > 1 and (stage.objective != "supervised" or stage.auxiliary):
                also = " with auxiliary losses" if stage.auxiliary else ""
                refuse(
                    f"stage {stage.name!r} is {stage.objective}{also}, and engine.sequence_parallel gives each process "
                    "a part of a pack: only sums over tokens can be put together from parts",
                    "train this stage in a curriculum of its own, with sequence_parallel: 1",
                )
            if stage.lora is not None and stage.lora.quantize is not None and self.engine.divides_weights:
                refuse(
                    f"stage {stage.name!r} quantises frozen weights, and {self.engine.divides_weights} partitions "
                    "them: it would cut 4-bit weights from the scales that they need",
                    "use kind: deepspeed and zero_stage: 2 (frozen 4-bit weights are small), or lora.quantize: null",
                )

    def _check_evaluated(self, stage: Stage) -> None:
        if stage.evaluate_every is None:
            return
        if self.evaluation is None:
            refuse(
                f"stage {stage.name!r} has evaluate_every, but there is no 'evaluation'",
                "say what is asked (`evaluation: {manifests: [questions.jsonl], samples_per_manifest: 50}`), or remove "
                "evaluate_every",
            )
        if self.engine.sequence_parallel > 1:
            refuse(
                f"stage {stage.name!r} has evaluate_every, but its processes share each pack (sequence_parallel): "
                "their attention would wait for one another at every word of an answer",
                "remove evaluate_every and ask the checkpoint of the stage (medvlm eval)",
            )

    def stage(self, name: str) -> Stage:
        """The stage called ``name``.

        Raises:
            BadConfig: there is none.
        """
        names = [stage.name for stage in self.stages]
        if name not in names:
            refuse(f"no stage {name!r}{nearest(name, names)}", f"use one of {', '.join(names)}")
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


def fingerprint(
    curriculum: Curriculum, stage: str | None = None, packs_per_step: Mapping[str, int] | None = None
) -> str:
    """SHA-256 (hex) of everything that may change the weights.

    Left out are where files lie (``output_dir``, ``data.root``), cache, workers, evaluation, and
    how often states are saved: a training may be resumed after these change. What the samples hold is the
    business of the fingerprint of the data.

    Args:
        stage: cover the stages up to and including this one; None covers all.
        packs_per_step: stage -> what it had when something was saved: with another number of processes it must differ
            for the same training.
    """
    had = packs_per_step or {}
    names = [s.name for s in curriculum.stages]
    count = len(names) if stage is None else names.index(curriculum.stage(stage).name) + 1
    stages = tuple(
        replace(
            s,
            save_every=None,
            evaluate_every=None,
            keep_checkpoints=1,
            packs_per_step=had.get(s.name, s.packs_per_step),
        )
        for s in curriculum.stages[:count]
    )
    plain = _affecting(replace(curriculum, stages=stages, evaluation=None, output_dir=""))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _affecting(value: Any) -> Any:
    """Plain JSON of ``value`` without fields that change no weight, and without newer ones at their default."""
    if isinstance(value, dict):
        return {key: _affecting(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_affecting(item) for item in value]
    if not is_dataclass(value):
        return value
    kept = {}
    for item in fields(value):
        now = getattr(value, item.name)
        default = item.default if item.default_factory is MISSING else item.default_factory()
        if not item.metadata.get("aside") and not (item.metadata.get("later") and now == default):
            kept[item.name] = _affecting(now)
    return kept
