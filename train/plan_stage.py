"""Plan one stage: measure its data, count what it would take, and check what it would learn from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from transformers import PretrainedConfig

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.loader import PackReader
from medvlm.data_recipes.packing import Length
from medvlm.model.batch import PackedBatch
from medvlm.model.flops import model_flops
from medvlm.model.loading import Model, Processor, empty_model
from medvlm.train.assemble import set_trainable
from medvlm.train.config import Curriculum, Stage
from medvlm.train.data import StageData, prepare_data, stage_cost
from medvlm.train.devices import Accelerator
from medvlm.train.plan_checks import (
    RENDERED,
    Files,
    Finding,
    Masks,
    check_auxiliary,
    check_files,
    check_masks,
    findings_of,
)
from medvlm.train.plan_memory import Memory, estimate_memory, what_would_fit
from medvlm.train.plan_time import Scale, Time, operations_of, time_of
from medvlm.train.stage import lengths_folder, renderer_of

COMPARED = 3
"""Packs that are read to learn how visuals fall into them."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What the training would run on.

    Attributes:
        processes: one a GPU.
        gpu: None: not said.
        mfu: share of the published peak that is hoped for.
        price: of one GPU for one hour; None: not said.
    """

    processes: int = 1
    gpu: Accelerator | None = None
    mfu: float = 0.4
    price: float | None = None


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """What one stage will do.

    Attributes:
        trained: component (or "lora") -> parameters that get a gradient.
        samples: usable ones of each source, of those that a round draws.
        tokens: over the whole stage and all processes; ``supervised`` of them carry loss.
        kept: share of the visual tokens that the decoder sees; 1 without reduction.
        packs: of one round of the mixture; ``waste`` is the share of the token budget that they leave empty.
        largest: (tokens, patches) of the fullest pack by each.
        operations: floating-point operations of the whole stage; None when the model's config does not tell.
        time: on the hardware that was named.
        would_fit: changes after which the stage fits that hardware; empty when it does.
    """

    stage: Stage
    data: StageData
    trained: dict[str, int]
    samples: dict[str, int]
    steps: int
    tokens: int
    supervised: int
    patches: int
    kept: float
    packs: int
    waste: float
    largest: tuple[int, int]
    memory: Memory
    masks: Masks
    files: Files
    operations: float | None
    time: Time | None = None
    would_fit: tuple[str, ...] = ()
    findings: list[Finding] = field(default_factory=list)


def plan_stage(
    curriculum: Curriculum, stage: Stage, config: PretrainedConfig, processor: Processor, hardware: Hardware
) -> StagePlan:
    """Measure the data of ``stage`` and count what it would take."""
    model, trained, findings = shaped(config, stage)
    renderer = renderer_of(curriculum, processor, stage)
    data = prepare_data(
        stage, curriculum.data, renderer, seed=curriculum.seed * 1000 + curriculum.stages.index(stage),
        # A plan makes no run folder; in one that is there it finds what was measured, and adds to it.
        lengths_folder=lengths_folder(curriculum) if Path(curriculum.output_dir).is_dir() else None,
        cost=stage_cost(model, stage, curriculum.data),
    )  # fmt: skip
    packs = list(data.plan.round(0))
    lengths = [list(data.plan.lengths.of(pack).values()) for pack in packs]
    drawn = np.unique([index for pack in packs for index in pack])
    ends = np.cumsum([len(source) for source in data.rows.sources])
    counts = np.diff(np.searchsorted(drawn, ends), prepend=0)
    groups = max(1, hardware.processes // curriculum.engine.sequence_parallel)  # each takes packs of its own
    steps = data.steps(stage, groups)
    share = steps * groups * stage.packs_per_step / len(packs)
    tokens = [sum(length.tokens for length in pack) for pack in lengths]
    patches = [sum(length.patches for length in pack) for pack in lengths]
    # A few from everywhere, so that every source of the mixture is likely among them.
    spread = drawn[np.unique(np.linspace(0, len(drawn) - 1, min(len(drawn), RENDERED)).round().astype(int))]
    masks = check_masks(data.rows, spread.tolist(), renderer)
    files = check_files(data.rows, drawn.tolist(), renderer.root)
    findings += check_auxiliary(stage, data.rows, spread.tolist())
    refused = len(data.quarantine)
    findings += findings_of(
        stage, masks, files, refused, len(drawn) + refused, curriculum.data.quarantine_limit
    )  # fmt: skip
    operations = operations_of_round(model, stage, data, packs, lengths, renderer_of(curriculum, processor, stage))
    memory = estimate_memory(model, curriculum, stage, hardware.processes)
    gpu = hardware.gpu
    would_fit: tuple[str, ...] = ()
    if gpu is not None and not memory.fits(gpu):
        would_fit = tuple(what_would_fit(model, curriculum, stage, hardware.processes, gpu))
        findings.append(does_not_fit(stage, memory, gpu, would_fit))
    return StagePlan(
        stage=stage,
        data=data,
        trained=trained,
        samples={source.manifest: int(n) for source, n in zip(stage.mixture, counts, strict=True)},
        steps=steps,
        tokens=round(share * sum(tokens)),
        supervised=round(share * sum(length.supervised for pack in lengths for length in pack)),
        patches=round(share * sum(patches)),
        kept=visual_tokens_kept(length for pack in lengths for length in pack),
        packs=len(packs),
        waste=1 - sum(tokens) / (len(packs) * curriculum.data.tokens_per_pack),
        largest=(max(tokens), max(patches)),
        memory=memory,
        masks=masks,
        files=files,
        operations=None if operations is None else operations * share,
        time=None
        if gpu is None or operations is None
        else time_of(operations * share, gpu, hardware.mfu, hardware.processes),
        would_fit=would_fit,
        findings=findings,
    )


def shaped(config: PretrainedConfig, stage: Stage) -> tuple[Model, dict[str, int], list[Finding]]:
    """The model of ``stage`` without weights, what it trains, and a warning when a package for that is missing here.

    Layers are not quantised: there is nothing to quantise, and the memory is counted from their sizes.
    """
    model, findings = empty_model(config), []
    plain = stage
    if stage.lora is not None and stage.lora.quantize is not None:
        plain = replace(stage, lora=replace(stage.lora, quantize=None))
        if find_spec("bitsandbytes") is None:
            findings.append(
                Finding(
                    level="warning",
                    stage=stage.name,
                    reason="lora.quantize needs bitsandbytes, which is not here",
                    mend="run `pip install 'medvlm[qlora]'` where the training will run",
                )
            )
    return model, set_trainable(model, plain), findings


def operations_of_round(
    model: Model,
    stage: Stage,
    data: StageData,
    packs: Sequence[Sequence[int]],
    lengths: Sequence[Sequence[Length]],
    renderer: object,
) -> float | None:
    """Floating-point operations of one round of the mixture; None when the config does not say how large the model is.

    The first packs are read: how their patches fall into visuals says how the others' probably do.
    """
    try:
        costs = model_flops(model)
    except (AttributeError, ValueError, TypeError):
        return None
    reader = PackReader(
        rows=data.rows, renderer=renderer, tokens_per_pack=data.plan.tokens_per_pack,  # type: ignore[arg-type]
        patches_per_pack=data.plan.patches_per_pack,
    )  # fmt: skip
    read: list[PackedBatch] = []
    known: list[Sequence[Length]] = []
    for members, told in zip(packs[:COMPARED], lengths[:COMPARED], strict=True):
        try:
            pack, failed = reader.load(members)
        except (BadSample, RuntimeError):
            continue
        if not failed:
            read.append(pack)
            known.append(told)
    scale = Scale.of_packs(read, known, costs, stage)
    return operations_of(lengths, costs, stage, scale)


def does_not_fit(stage: Stage, memory: Memory, gpu: Accelerator, would_fit: Sequence[str]) -> Finding:
    """The refusal of a stage that a named GPU has no room for."""
    has = gpu.memory_bytes / 2**30
    return Finding(
        level="refusal",
        stage=stage.name,
        reason=f"needs about {memory.needed():.1f} GiB a process, and {gpu.name} has {has:.1f}",
        mend="; or ".join(would_fit[:4]) or "a smaller model, LoRA with quantize: nf4, or a GPU with more memory",
    )


def visual_tokens_kept(lengths: Iterable[Length]) -> float:
    """Share of the visual tokens of ``lengths`` that the decoder sees; 1 when there are none."""
    counts = [(length.visual_tokens, length.visual_tokens_made) for length in lengths]
    made = sum(number for _, number in counts)
    return sum(number for number, _ in counts) / made if made else 1.0
