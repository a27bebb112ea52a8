"""One training of the SFT benchmark, in a process of its own: ours, TRL's SFTTrainer, or transformers' Trainer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from medvlm.data_recipes.loader import Loader
from medvlm.data_recipes.manifest import read_manifest
from medvlm.data_recipes.rendering import Renderer
from medvlm.model.loading import load_checkpoint
from medvlm.scripts.bench.dpo_contenders import PEERS
from medvlm.scripts.bench.sft_data import conversation
from medvlm.train.assemble import component_of, set_trainable
from medvlm.train.config import DataConfig, EngineConfig, LearningRates, Source, Stage
from medvlm.train.data import prepare_data, stage_cost
from medvlm.train.engine import make_engine
from medvlm.train.objectives.supervised import Supervised
from medvlm.train.optim import parameter_groups, scaled_learning_rates
from medvlm.train.randomness import seed_everything

RATE = 1e-4
WARMUP = 2
"""Steps that are not timed."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a contender is told: ``start`` and sft.jsonl in a folder, samples of a peer's batch, tokens of a pack."""

    folder: Path
    steps: int
    batch: int
    tokens: int
    device: str


@dataclass
class Watch:
    """Times and useful tokens of each step: those that are no padding, prompts and placeholders of images included."""

    device: str
    times: list[float] = field(default_factory=list)
    useful: list[int] = field(default_factory=list)
    data: list[float] = field(default_factory=list)
    padded: int = 0

    def step(self) -> None:
        """A step is done."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())

    def report(self) -> dict[str, float]:
        """What the parent process prints."""
        steps = len(self.times)
        seconds = self.times[-1] - self.times[WARMUP - 1]
        useful = sum(self.useful[WARMUP:steps])
        preparing = sum(self.data[WARMUP:steps])
        return {
            "tokens_per_second": useful / seconds,
            "model_tokens_per_second": useful / max(seconds - preparing, 1e-9),
            "data_share": preparing / seconds,
            "padding": 1 - sum(self.useful) / max(self.padded, 1),
        }


def ours(task: Task) -> dict[str, float]:
    """Packs of our loader, next-token loss on the answers, everything trains."""
    watch = Watch(task.device)
    rates = LearningRates(vision=RATE, projector=RATE, text=RATE)
    stage = Stage(
        name="sft", mixture=(Source(manifest="sft.jsonl"),), steps=task.steps, learning_rate=rates, schedule="constant"
    )
    seed_everything(0)
    model, processor = load_checkpoint(task.folder / "start")
    set_trainable(model, stage)
    data_config = DataConfig(root=str(task.folder), tokens_per_pack=task.tokens, patches_per_pack=8 * task.tokens)
    # Every picture is read anew, as the peers read theirs.
    renderer = Renderer(processor, task.folder, memory_bytes=1)
    data = prepare_data(stage, data_config, renderer, seed=0, cost=stage_cost(model, stage, data_config))
    groups = parameter_groups(model.named_parameters(), partial(component_of, model), stage.peak_learning_rates(), 0.0)
    config = EngineConfig(device=task.device, precision="bf16" if task.device == "cuda" else "fp32")  # type: ignore[arg-type]
    engine = make_engine(config, model.train(), groups)
    loader = Loader(data.rows, data.plan, renderer, packs_per_step=1, quarantine=data.quarantine)
    objective = Supervised()
    steps = loader.steps()
    for _ in range(task.steps):
        began = time.perf_counter()
        packs = next(steps)
        watch.data.append(time.perf_counter() - began)
        for pack in packs:
            loss = objective(engine.model, pack.to(engine.device))
            engine.backward(loss.total / max(objective.count(pack), 1), last=True)
        engine.step(scaled_learning_rates(groups, 1.0))
        watch.useful.append(sum(len(pack.tokens) for pack in packs))
        watch.padded += task.tokens * len(packs)
        watch.step()
    steps.close()
    return watch.report()


class _Collating:
    """A collator whose time and tokens are noted."""

    def __init__(self, collate: Callable[[list[Any]], dict[str, Any]], watch: Watch) -> None:
        self.collate, self.watch = collate, watch

    def __call__(self, rows: list[Any]) -> dict[str, Any]:
        began = time.perf_counter()
        batch = self.collate(rows)
        self.watch.data.append(time.perf_counter() - began)
        self.watch.useful.append(int(batch["attention_mask"].sum()))
        self.watch.padded += batch["attention_mask"].numel()
        return batch


def _prepared(task: Task) -> tuple[Any, Any, list[dict[str, Any]], dict[str, Any]]:
    """Model, processor, rows and the arguments that both peers share."""
    import transformers

    from medvlm.scripts.bench.dpo_processor import pictures_processor

    start = task.folder / "start"
    model = transformers.AutoModelForImageTextToText.from_pretrained(start, dtype=torch.float32)
    samples = read_manifest(task.folder / "sft.jsonl")[0]
    wanted = task.batch * task.steps
    rows = [conversation(samples[number % len(samples)], task.folder) for number in range(wanted)]
    cuda = task.device == "cuda"
    shared = {
        "output_dir": str(task.folder / "peer"), "per_device_train_batch_size": task.batch, "max_steps": task.steps,
        "learning_rate": RATE, "lr_scheduler_type": "constant", "weight_decay": 0.0, "max_grad_norm": 1.0,
        "adam_beta2": 0.95, "optim": "adamw_torch", "report_to": [], "save_strategy": "no", "logging_strategy": "no",
        "disable_tqdm": True, "bf16": cuda, "use_cpu": not cuda, "remove_unused_columns": False,
        "gradient_checkpointing": False,
    }  # fmt: skip
    return model, pictures_processor(start), rows, shared


def trl(task: Task) -> dict[str, float]:
    """SFTTrainer of TRL as it stands: pictures prepared by its collator, padded to the longest, loss on completions."""
    try:
        import datasets
        import trl as library
    except ModuleNotFoundError as error:
        raise SystemExit(f"{error.name} is not installed: {PEERS}") from error
    watch = Watch(task.device)
    model, processor, rows, shared = _prepared(task)
    trainer = library.SFTTrainer(
        model=model, args=library.SFTConfig(**shared, max_length=None), processing_class=processor,
        train_dataset=datasets.Dataset.from_list(rows), callbacks=[_noting(watch)],
    )  # fmt: skip
    trainer.data_collator = _Collating(trainer.data_collator, watch)
    trainer.train()
    return watch.report()


def plain(task: Task) -> dict[str, float]:
    """Trainer of transformers with the collator that its examples have: template, processor, padding, labels."""
    import transformers

    watch = Watch(task.device)
    model, processor, rows, shared = _prepared(task)
    tokenizer = processor.tokenizer

    def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
        whole = [tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False) for row in batch]
        asked = [
            tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True) for row in batch
        ]
        images = [row["images"] for row in batch]
        made = processor(text=whole, images=images if any(images) else None, padding=True, return_tensors="pt")
        labels = made["input_ids"].masked_fill(made["attention_mask"] == 0, -100)
        for place, (row, prompt) in enumerate(zip(batch, asked, strict=True)):
            shown = [row["images"]] if row["images"] else None
            labels[place, : processor(text=[prompt], images=shown, return_tensors="pt")["input_ids"].shape[1]] = -100
        return {**made, "labels": labels}

    trainer = transformers.Trainer(
        model=model, args=transformers.TrainingArguments(**shared), train_dataset=rows, callbacks=[_noting(watch)],
        data_collator=_Collating(collate, watch),
    )  # fmt: skip
    trainer.train()
    return watch.report()


def _noting(watch: Watch) -> Any:
    import transformers

    class Noting(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.step()

    return Noting()


CONTENDERS: dict[str, Callable[[Task], dict[str, float]]] = {"medvlm": ours, "TRL": trl, "transformers": plain}
