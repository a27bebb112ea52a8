"""THE LOOP: packs in, one update out."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from medvlm.data_recipes.loader import Loader
from medvlm.model.batch import PackedBatch
from medvlm.train.agreement import agree
from medvlm.train.config import Stage
from medvlm.train.engine import Engine
from medvlm.train.monitor import Monitor, StepReport
from medvlm.train.nonfinite import spoiled
from medvlm.train.objectives.objective import Loss, Objective
from medvlm.train.optim import learning_rate_at, scaled_learning_rates
from medvlm.train.survival import Survival
from medvlm.train.throughput import Meter
from medvlm.train.transfer import on_device


def train(
    engine: Engine,
    groups: list[dict[str, Any]],
    stage: Stage,
    loader: Loader,
    survival: Survival,
    monitor: Monitor,
    objective: Objective,
    *,
    start: int,
    total: int,
    ask: Callable[[Engine, int], Mapping[str, float | None]] | None = None,
) -> None:
    """Until ``total`` steps are done.

    A step whose loss or gradient is no number moves nothing; see ``nonfinite.Skipped``.

    Args:
        groups: of ``parameter_groups``, which the engine was made with.
        objective: of ``make_objective``.
        ask: scores the weights after a step, every ``stage.evaluate_every`` steps and at the end; changes nothing.

    Raises:
        Stopped: a signal asked for an end; the state is saved.
        NotSaved: the state cannot be saved.
        FloatingPointError: too many steps are no numbers; names the samples of the last.
    """
    peaks, meter = stage.peak_learning_rates(), monitor.meter
    for step, packs, waited, problem in timed(loader.steps(), start=start, total=total):
        began = time.perf_counter()
        meter.note("data", waited)
        survival.at(step + 1, "agreeing on the step")
        with meter.phase("ranks"):
            told = agree(engine, loader, [*items(objective, packs), *survival.news()], problem)
            counts = survival.heard(engine, told)
        survival.at(step + 1, "forward and backward")
        if objective.prepares:
            with meter.phase("prepare", engine.device):
                packs = objective.prepare(engine, packs)
                counts = engine.sum_over_ranks(torch.tensor(items(objective, packs), dtype=torch.float64)).tolist()
                engine.begin_step(len(packs))
        factor = learning_rate_at(
            step, schedule=stage.schedule, total_steps=total, warmup_steps=stage.warmup_steps,
            minimum_ratio=stage.min_learning_rate_ratio,
        )  # fmt: skip
        for _ in range(objective.updates):
            sums = Sums(found=objective.told, shared_by=objective.shared_by)
            arriving = on_device(packs, engine.device)
            for number, pack in enumerate(packs):
                last = number == len(packs) - 1
                with meter.phase("to_device"):
                    placed = next(arriving)
                with meter.phase("compute", engine.device if last else None):
                    loss = objective(engine.model, placed)
                    engine.backward(spoiled(mean(objective, loss, counts)), last=last)
                    sums.add(pack, loss)
                meter.take(pack, objective.shared_by)
            survival.at(step + 1, "updating")
            try:
                with meter.phase("optimizer", engine.device):
                    norm = engine.step(scaled_learning_rates(groups, factor))
            except FloatingPointError as error:
                norm = survival.left_out(engine, step + 1, packs, sums.not_finite, error)
                sums.left_out = True
        seconds = time.perf_counter() - began + waited
        scores: Mapping[str, float | None] = {}
        if ask is not None and stage.evaluate_every and ((step + 1) % stage.evaluate_every == 0 or step + 1 == total):
            survival.at(step + 1, "answering questions")
            with meter.phase("evaluate", engine.device):
                scores = ask(engine, step + 1)
        monitor.log(
            sums.report(
                engine,
                counts,
                meter,
                step=step + 1,
                learning_rates={name: peak * factor for name, peak in peaks.items()},
                grad_norm=norm,
                seconds=seconds,
                data_wait_s=waited,
                scores=scores,
            )
        )
        with meter.phase("save"):
            survival.save(engine, loader, step + 1, last=step + 1 == total)
        survival.at(step + 2, "reading data")


def items(objective: Objective, packs: Sequence[PackedBatch]) -> list[float]:
    """What the losses of ``packs`` sum over: the main one, then the auxiliary ones in their order."""
    counts = [float(sum(objective.count(pack) for pack in packs))]
    auxiliary = [objective.auxiliary_counts(pack) for pack in packs]
    return counts + [float(sum(pack[name] for pack in auxiliary)) for name in objective.auxiliary_weights]


def mean(objective: Objective, loss: Loss, counts: Sequence[float]) -> Tensor:
    """This pack's part of the loss of the step: each sum divided by its items of all packs and ranks.

    Of a step of which nothing could be read the loss is a sum over nothing: its gradient is zero.
    """
    part = loss.total / max(counts[0], 1.0)
    for (name, weight), count in zip(objective.auxiliary_weights.items(), counts[1:], strict=True):
        part = part + weight * loss.auxiliary[name] / max(count, 1.0)
    return part


@dataclass
class Sums:
    """What the packs of one step and rank add up to; ``shared_by``: processes that each pack is counted by."""

    shared_by: int = 1
    sizes: Counter[str] = field(default_factory=Counter)
    losses: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    found: Mapping[str, float] = field(default_factory=dict)
    not_finite: list[str] = field(default_factory=list)
    left_out: bool = False

    def add(self, pack: PackedBatch, loss: Loss) -> None:
        """Take in one pack."""
        self.sizes["tokens"] += len(pack.tokens)
        self.sizes["patches"] += int(pack.grids.prod(dim=1).sum())
        self.sizes["visual_tokens"] += int(pack.kept.sum())
        self.sizes["visual_tokens_made"] += len(pack.kept)
        self.names = list(loss.auxiliary)
        losses = [float(total.detach().double()) for total in (loss.total, *loss.auxiliary.values())]
        if not all(map(math.isfinite, losses)):
            self.not_finite += pack.sample_ids
        self.losses = [a + b for a, b in zip(self.losses, losses, strict=True)] if self.losses else losses
        self.metrics = {name: self.metrics.get(name, 0.0) + value for name, value in loss.metrics.items()}

    def report(
        self, engine: Engine, counts: Sequence[float], meter: Meter, *, seconds: float, **known: Any
    ) -> StepReport:
        """The step over all ranks; all ranks must call it."""
        cost = meter.told(engine)
        told = [*cost, *self.sizes.values(), *self.losses, *self.metrics.values()]
        over_ranks = engine.sum_over_ranks(torch.tensor(told, dtype=torch.float64)).tolist()
        over_ranks, cost = over_ranks[len(cost) :], over_ranks[: len(cost)]
        sizes: dict[str, Any] = {
            name: int(total) // self.shared_by for name, total in zip(self.sizes, over_ranks, strict=False)
        }
        rest = over_ranks[len(sizes) :]
        losses = [total / count if count else math.nan for total, count in zip(rest, counts, strict=False)]
        means = [value / counts[0] if counts[0] else math.nan for value in rest[len(counts) :]]
        metrics = dict(zip(self.names, losses[1:], strict=True)) | dict(zip(self.metrics, means, strict=True))
        metrics |= self.found
        if self.left_out:
            metrics["left_out"] = 1.0
        return StepReport(
            loss=losses[0], supervised_tokens=int(counts[0]), metrics=metrics, seconds=seconds,
            cost=meter.cost(cost, seconds), **sizes, **known,
        )  # fmt: skip


def timed(
    steps: Generator[list[PackedBatch], None, None], *, start: int, total: int
) -> Generator[tuple[int, list[PackedBatch], float, Exception | None], None, None]:
    """(step, packs, seconds waited for them, why there are none) of steps ``start`` to ``total``; closes ``steps``."""
    try:
        for step in range(start, total):
            began = time.perf_counter()
            packs: list[PackedBatch] = []
            problem = None
            try:
                packs = next(steps)
            except Exception as error:  # noqa: BLE001 (raised by all ranks together)
                problem = error
            yield step, packs, time.perf_counter() - began, problem
    finally:
        steps.close()
