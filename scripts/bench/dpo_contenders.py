"""One training of the DPO benchmark, in a process of its own: ours, or TRL's DPOTrainer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from medvlm.data_recipes.loader import Loader
from medvlm.data_recipes.manifest import read_manifest
from medvlm.data_recipes.rendering import Renderer
from medvlm.data_recipes.rows import Joined, ManifestRows
from medvlm.model.loading import load_checkpoint
from medvlm.scripts.bench.dpo_checkpoint import same_adapters, texts_of
from medvlm.scripts.bench.dpo_plan import InOrder
from medvlm.scripts.bench.hardware import held
from medvlm.train.assemble import component_of, set_trainable
from medvlm.train.checkpointing import checkpoint_activations
from medvlm.train.config import EngineConfig, Lora, PreferenceConfig, Source, Stage
from medvlm.train.engine import make_engine
from medvlm.train.objectives.preference import Preference
from medvlm.train.optim import parameter_groups, scaled_learning_rates
from medvlm.train.randomness import seed_everything

RATE, RANK, ALPHA, BETA = 1e-3, 16, 32, 0.1
WARMUP = 2
"""Steps that are not timed."""

PEERS = (
    "python -m venv .venv-peers, point it to the usual packages by a .pth file (docs/benchmarks.md), and "
    "run .venv-peers/bin/pip install -c constraints.txt trl datasets"
)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a contender is told.

    Attributes:
        folder: with ``start`` (the checkpoint), pairs.jsonl and pictures.
        steps: optimizer steps, the first WARMUP of which are not timed.
        pairs: of one step.
        checkpointing: activations are computed again in the backward pass.
    """

    folder: Path
    steps: int
    pairs: int
    checkpointing: bool
    device: Literal["cpu", "cuda"]


@dataclass
class Watch:
    """Time and memory of a training; the loss of each step."""

    device: str
    base: float = field(init=False)
    times: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.base = peak_mib(self.device)

    def step(self, loss: float | None = None) -> None:
        """A step is done."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())
        self.cpu.append(time.process_time())
        if loss is not None:
            self.losses.append(loss)

    def report(self, task: Task) -> dict[str, Any]:
        """What the parent process prints."""
        timed = task.pairs * (task.steps - WARMUP)
        return {
            "pairs_per_second": timed / (self.times[-1] - self.times[WARMUP - 1]),
            "cpu_seconds_per_pair": (self.cpu[-1] - self.cpu[WARMUP - 1]) / timed,
            "peak_mib": peak_mib(self.device) - self.base,
            "losses": self.losses,
        }


def peak_mib(device: str) -> float:
    """Peak memory so far: of the process on a CPU, of the device on a GPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return held("VmHWM") / 2**20


def ours(task: Task) -> dict[str, Any]:
    """Preference over packs of our loader, LoRA on the decoder, the reference by adapters off."""
    watch = Watch(task.device)
    stage = Stage(
        name="dpo", objective="preference", mixture=(Source(manifest="pairs.jsonl"),), steps=task.steps,
        lora=Lora(rank=RANK, alpha=ALPHA, learning_rate=RATE), preference=PreferenceConfig(beta=BETA),
        schedule="constant",
    )  # fmt: skip
    seed_everything(0)
    model, processor = load_checkpoint(task.folder / "start")
    set_trainable(model, stage)
    same_adapters(model)
    if task.checkpointing:
        checkpoint_activations(model, True)
    renderer = Renderer(processor, task.folder)
    rows = Joined([ManifestRows(task.folder / "pairs.jsonl")])
    groups = parameter_groups(model.named_parameters(), partial(component_of, model), stage.peak_learning_rates(), 0.0)
    config = EngineConfig(device=task.device, precision="bf16" if task.device == "cuda" else "fp32")
    engine = make_engine(config, model.train(), groups)
    plan = InOrder(rows, renderer, pairs=task.pairs, steps=task.steps)
    loader = Loader(rows, plan, renderer, packs_per_step=1, rank=0, world_size=1)
    objective = Preference(stage.preference, engine.module)  # type: ignore[arg-type]
    steps = loader.steps()
    for _ in range(task.steps):
        packs = next(steps)
        count = sum(objective.count(pack) for pack in packs)
        total = 0.0
        for pack in packs:
            loss = objective(engine.model, pack.to(engine.device))
            engine.backward(loss.total / count, last=pack is packs[-1])
            total += float(loss.total.detach()) / count
        engine.step(scaled_learning_rates(groups, 1.0))
        watch.step(total)
    steps.close()
    return watch.report(task)


def trl(task: Task) -> dict[str, Any]:
    """DPOTrainer of TRL with a PEFT adapter on the same layers; its collator prepares pictures on the fly."""
    try:
        import datasets
        import trl as library
    except ModuleNotFoundError as error:
        raise SystemExit(f"{error.name} is not installed: {PEERS}") from error
    import peft
    import transformers
    from PIL import Image as Pil

    from medvlm.scripts.bench.dpo_processor import pictures_processor

    samples = read_manifest(task.folder / "pairs.jsonl")[0][: task.pairs * task.steps]
    watch = Watch(task.device)
    start = task.folder / "start"
    model = transformers.AutoModelForImageTextToText.from_pretrained(start, dtype=torch.float32)
    images = [[Pil.open(task.folder / sample.turns[0].content[0].path)] for sample in samples]  # type: ignore[union-attr]
    table = [{**texts_of(sample), "images": shown} for sample, shown in zip(samples, images, strict=True)]
    cuda = task.device == "cuda"
    arguments = library.DPOConfig(
        output_dir=str(task.folder / "trl"), per_device_train_batch_size=task.pairs, gradient_accumulation_steps=1,
        max_steps=task.steps, learning_rate=RATE, lr_scheduler_type="constant", beta=BETA, loss_type=["sigmoid"],
        weight_decay=0.0, max_grad_norm=1.0, adam_beta2=0.95, optim="adamw_torch", max_length=None,
        gradient_checkpointing=task.checkpointing, train_sampling_strategy="sequential", report_to=[],
        save_strategy="no", logging_strategy="steps", logging_steps=1, disable_tqdm=True, bf16=cuda, use_cpu=not cuda,
    )  # fmt: skip
    layers = r".*language_model\.layers\.\d+\.(self_attn|mlp)\.[a-z]+_proj"
    adapter = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=layers)
    trainer = library.DPOTrainer(
        model=model, args=arguments, train_dataset=datasets.Dataset.from_list(table),
        processing_class=pictures_processor(start), peft_config=adapter, callbacks=[_callback(transformers, watch)],
    )  # fmt: skip
    same_adapters(trainer.model)
    trainer.train()
    return watch.report(task)


def _callback(transformers: Any, watch: Watch) -> Any:
    class Noting(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.step()

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                watch.losses.append(float(logs["loss"]))

    return Noting()


CONTENDERS: dict[str, Callable[[Task], dict[str, Any]]] = {"medvlm": ours, "TRL": trl}
