"""One stage: assemble it, train it in the loop, leave a checkpoint."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from medvlm.data_recipes.loader import Loader
from medvlm.data_recipes.pack_plan import Position
from medvlm.data_recipes.rendering import Renderer
from medvlm.model.batch import PackedBatch
from medvlm.model.loading import Model, Processor, load_checkpoint, save_checkpoint
from medvlm.train.adapter import save_adapter
from medvlm.train.agreement import together
from medvlm.train.assemble import component_of, set_trainable
from medvlm.train.attention import choose_attention
from medvlm.train.checkpointing import checkpoint_activations
from medvlm.train.compiling import compile_parts
from medvlm.train.config import Curriculum, Stage, fingerprint
from medvlm.train.data import prepare_data, stage_cost
from medvlm.train.devices import peak_of
from medvlm.train.distributed import Ranks, check_same_on_all_ranks
from medvlm.train.engine import Engine, make_engine
from medvlm.train.feature_cache import WithFeatures, open_cache
from medvlm.train.loop import train
from medvlm.train.lora import merge_lora
from medvlm.train.monitor import Monitor
from medvlm.train.objectives.choice import make_objective
from medvlm.train.objectives.reinforcement import RolloutPlace
from medvlm.train.optim import parameter_groups
from medvlm.train.preflight import preflight
from medvlm.train.quantize import load_trained
from medvlm.train.randomness import seed_everything
from medvlm.train.run_report import environment, write_overview
from medvlm.train.sequence_parallel import PartOfPack, sequence_group, share_packs
from medvlm.train.shown_samples import shown_samples
from medvlm.train.stage_processor import processor_of_stage
from medvlm.train.stopping import Stopping
from medvlm.train.survival import Survival
from medvlm.train.task_scores import task_scores
from medvlm.train.throughput import Meter, counter_of
from medvlm.train.trackers import Tracker, open_trackers


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """Where a stage left its checkpoint, and what it trained."""

    checkpoint: Path
    steps: int
    trained: dict[str, int]
    quarantined: int


def stage_folder(curriculum: Curriculum, name: str) -> Path:
    """runs/NAME/stages/NN-stage: sorted as they are run."""
    number = [stage.name for stage in curriculum.stages].index(name) + 1
    return Path(curriculum.output_dir) / "stages" / f"{number:02d}-{name}"


def run_stage(curriculum: Curriculum, stage: Stage, start_from: Path, ranks: Ranks, stopping: Stopping) -> StageResult:
    """Train ``stage`` from the checkpoint ``start_from``; resume when it was begun before.

    Raises:
        ValueError: ranks differ in configuration or data; a resume of something else.
        FloatingPointError: loss or gradient was not finite too often; names the samples of the step.
        Stopped, NotSaved: see ``loop.train``.
    """
    folder = stage_folder(curriculum, stage.name)
    folder.mkdir(parents=True, exist_ok=True)
    check_same_on_all_ranks("configuration", fingerprint(curriculum, stage.name), ranks.device)
    number = curriculum.stages.index(stage)
    seed = curriculum.seed * 1000 + number
    seed_everything(seed)
    model, processor = load_checkpoint(start_from)
    trained = set_trainable(model, stage)
    again = checkpoint_activations(model, curriculum.engine.activation_checkpointing)
    compiled = compile_parts(model, curriculum.engine.compile, ranks.device)
    processor = processor_of_stage(processor, stage.processor)
    renderer = renderer_of(curriculum, processor, stage)
    meter = meter_of(curriculum, stage, model, ranks)
    say = Narrator(stage.name, ranks.rank)
    say(f"trains {describe(trained)} of {sum(p.numel() for p in model.parameters()):,} parameters")
    if meter.peak is not None:
        say(f"MFU is a share of {meter.peak}")
    say(f"attention: {choose_attention(model, curriculum.engine, ranks.device)}")
    if again:
        say(f"computes activations again in the backward pass: {', '.join(again)}")
    if compiled:
        say(f"compiles norms and feed-forward blocks when they first run: {describe(compiled)}")
    if model.pads_because:
        say(f"pads the samples of a pack instead of laying them end to end: {model.pads_because}")
    prepare = partial(
        prepare_data, stage, curriculum.data, renderer, seed=seed, rank=ranks.rank, world_size=ranks.world_size,
        lengths_folder=lengths_folder(curriculum), quarantine_path=folder / "quarantine.jsonl", progress=say.preparing,
        cost=stage_cost(model, stage, curriculum.data),
    )  # fmt: skip
    data = together(prepare, ranks.device)
    say(f"{len(data.rows):,} rows in {', '.join(source.manifest for source in stage.mixture)}")
    check_same_on_all_ranks("data", data.fingerprint(), ranks.device)
    cache = open_cache(model, curriculum, stage, ranks.device, say)
    groups = parameter_groups(
        model.named_parameters(),
        partial(component_of, model),
        stage.peak_learning_rates(),
        stage.weight_decay,
        stage.betas,
    )
    engine = make_engine(curriculum.engine, model.train(), groups, micro_batches_per_step=stage.packs_per_step)
    sequence = sequence_group(curriculum.engine.sequence_parallel, engine.rank, engine.world_size)
    if sequence is not None:
        share_packs(model, sequence)
    shares = 1 if sequence is None else sequence.size
    total = together(partial(data.steps, stage, engine.world_size // shares), ranks.device)
    survival = Survival(
        curriculum, stage, folder=folder, steps=total, data=data.fingerprint(), rank=ranks.rank,
        world_size=ranks.world_size, stopping=stopping,
    )  # fmt: skip
    seed_everything(seed, ranks.rank)
    with closing(engine), ExitStack() as held:
        loader = Loader(
            data.rows, data.plan, renderer if cache is None else renderer.with_features(cache),
            packs_per_step=stage.packs_per_step, rank=engine.rank // shares,
            world_size=engine.world_size // shares, workers=curriculum.data.workers, quarantine=data.quarantine,
        )  # fmt: skip
        done = survival.load(engine, loader)
        objective = make_objective(
            stage,
            engine,
            processor,
            RolloutPlace(
                folder=folder,
                root=renderer.root,
                seed=seed,
                start=done,
                tokens_per_pack=curriculum.data.tokens_per_pack,
                patches_per_pack=curriculum.data.patches_per_pack,
            ),
        )
        if sequence is not None:
            objective = PartOfPack(objective, sequence)
        if cache is not None:
            objective = held.enter_context(WithFeatures(objective, cache))  # type: ignore[assignment]
        ask = task_scores(curriculum, stage.evaluate_every, folder, processor, seed=curriculum.seed)
        ran = None
        if curriculum.engine.preflight and done < total:
            ran = preflight(engine, groups, stage, loader, objective)
            if ran is not None:
                say(str(ran))
        trackers: list[Tracker] = []
        if ranks.rank == 0:
            write_overview(
                folder, steps=total, trained=trained, environment=environment(ranks.device, ranks.world_size),
                peak=None if meter.peak is None else str(meter.peak), preflight=None if ran is None else str(ran),
                samples=shown_samples(data.rows, next(data.plan.packs(Position()))[1], renderer),
            )  # fmt: skip
            trackers = open_trackers(
                curriculum.tracking, run=curriculum.name, stage=stage.name, output=Path(curriculum.output_dir),
                folder=folder, settings=asdict(curriculum), start_step=done,
            )  # fmt: skip
        monitor = Monitor(
            folder, stage.name, total, rank=ranks.rank, start_step=done, meter=meter, trackers=trackers
        )  # fmt: skip
        with monitor, survival:
            train(engine, groups, stage, loader, survival, monitor, objective, start=done, total=total, ask=ask)
        _, members = next(data.plan.packs(Position()))
        # The merge of adapters is proved on patches, whatever features are known.
        reader = replace(loader.reader, renderer=renderer)
        probe, _ = together(partial(reader.load, members), ranks.device)
        save_stage(engine, start_from, stage, folder / "checkpoint", probe)
    refused = len(data.quarantine)
    if refused:
        say(f"{refused} samples quarantined: see {folder / 'quarantine.jsonl'}")
    return StageResult(checkpoint=folder / "checkpoint", steps=total, trained=trained, quarantined=refused)


def meter_of(curriculum: Curriculum, stage: Stage, model: Model, ranks: Ranks) -> Meter:
    """What times the steps of ``stage`` and counts their operations; only rank 0 needs a peak to compare with."""
    count = counter_of(model, stage)
    peak = None
    if count is not None and ranks.rank == 0:
        dtype = torch.bfloat16 if curriculum.engine.precision == "bf16" else torch.float32
        peak = peak_of(ranks.device, dtype, Path(curriculum.output_dir))
    return Meter(tokens_per_pack=curriculum.data.tokens_per_pack, count=count, peak=peak)


@dataclass
class Narrator:
    """What rank 0 says of a stage besides its steps."""

    stage: str
    rank: int
    _said: float = field(default_factory=time.monotonic)

    def __call__(self, text: str) -> None:
        if self.rank == 0:
            print(f"[{self.stage}] {text}", file=sys.stderr, flush=True)

    def preparing(self, what: str, done: int, total: int) -> None:
        """Say now and then how far the measuring of a window of samples is."""
        now = time.monotonic()
        if self.rank == 0 and now - self._said > 5:
            self._said = now
            self(f"measured {done}/{total} {what} of the next window")


def save_stage(engine: Engine, start_from: Path, stage: Stage, folder: Path, probe: PackedBatch) -> None:
    """Gather the weights, merge adapters (proved on ``probe``), and write a loadable Hugging Face folder.

    The weights go into a fresh model: under ZeRO-3 the trained module itself holds empty parameters. The adapter
    alone is kept beside the merged model, in ``adapter/``.
    """
    weights = engine.gather_state_dict(weights="master")
    if weights is not None:
        model, processor = load_checkpoint(start_from)
        set_trainable(model, stage)
        load_trained(model, weights)
        if stage.lora is not None:
            save_adapter(folder.with_name("adapter"), model, base=str(start_from))
            merge_lora(model, probe)
        save_checkpoint(folder, model, processor_of_stage(processor, stage.processor))
    engine.barrier()


def cache_folder(curriculum: Curriculum) -> Path | None:
    """Where patches are kept, when the configuration asks for it."""
    return Path(curriculum.output_dir) / "cache" if curriculum.data.cache else None


def lengths_folder(curriculum: Curriculum) -> Path:
    """Where measured lengths of samples are kept."""
    return Path(curriculum.output_dir) / "lengths"


def renderer_of(curriculum: Curriculum, processor: Processor, stage: Stage) -> Renderer:
    """The renderer of ``stage`` with its ``processor``."""
    gib = curriculum.data.cache_gib
    limit = None if gib is None else int(gib * 2**30)
    room = None if stage.reinforcement is None else stage.reinforcement.max_new_tokens
    return Renderer(processor, Path(curriculum.data.root), cache_folder(curriculum), cache_bytes=limit, room=room)


def describe(trained: dict[str, int]) -> str:
    """ "vision 1,234, projector 567"."""
    return ", ".join(f"{name} {count:,}" for name, count in trained.items())
