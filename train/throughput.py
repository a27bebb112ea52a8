"""The meter of a training: where the time of each step goes, and which share of the hardware it uses."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from medvlm.model.batch import PackedBatch
from medvlm.model.flops import PARTS, Flops, ModelFlops, model_flops, training_flops
from medvlm.train.config import Stage
from medvlm.train.devices import Peak
from medvlm.train.engine import Engine
from medvlm.train.objectives.contrastive import ContrastivePack

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One step over all ranks.

    Attributes:
        phases: seconds of rank 0 in each phase of verdict.PHASES since the step before.
        mfu: model FLOPs utilisation (PaLM: Chowdhery et al. 2022, arXiv:2204.02311, appendix B): floating-point
            operations that the model needs, vision included, over what the devices could have done in the whole step,
            waits included; recomputation is not counted.
        hfu: the same with recomputation, which the hardware does and the model does not need.
        padding: share of the packs' token budgets that stayed empty; None when there is no budget.
        memory_gib: most that any rank has held so far: on its GPU, or of its process on a CPU.
    """

    phases: Mapping[str, float] = field(default_factory=dict)
    mfu: float | None = None
    hfu: float | None = None
    padding: float | None = None
    memory_gib: float | None = None


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Floating-point operations of one pack: what the model needs, and what the hardware does."""

    model: float = 0.0
    hardware: float = 0.0


Counter = Callable[[PackedBatch], Counted]


class Meter:
    """Times the phases of a step and adds up what its packs cost.

    On a GPU phases end when its work is done, not when it is queued: one wait before the optimizer and one after it,
    where the norm of the gradient is read anyway.

    Args:
        tokens_per_pack: budget, for the share of it that stays empty; 0: not known.
        count: floating-point operations of a pack; None: not counted.
        peak: what one process could do at most.
    """

    def __init__(self, *, tokens_per_pack: int = 0, count: Counter | None = None, peak: Peak | None = None) -> None:
        self.tokens_per_pack, self.count, self.peak = tokens_per_pack, count, peak
        self._phases: dict[str, float] = {}
        self._clear()

    def _clear(self) -> None:
        self._model = self._hardware = 0.0
        self._packs = self._tokens = 0.0

    def note(self, phase: str, seconds: float) -> None:
        """Add time to ``phase``."""
        self._phases[phase] = self._phases.get(phase, 0.0) + seconds

    @contextmanager
    def phase(self, name: str, device: torch.device | None = None) -> Iterator[None]:
        """Time a block; with a CUDA ``device`` its work is waited for."""
        began = time.perf_counter()
        try:
            yield
        finally:
            if device is not None and device.type == "cuda":
                torch.cuda.synchronize(device)
            self.note(name, time.perf_counter() - began)

    def take(self, pack: PackedBatch, shared_by: int = 1) -> None:
        """Count one pack of the step, or this process's share of a pack that ``shared_by`` processes take together."""
        self._packs += 1 / shared_by
        self._tokens += len(pack.tokens) / shared_by
        if self.count is not None:
            counted = self.count(pack)
            self._model += counted.model / shared_by
            self._hardware += counted.hardware / shared_by

    def told(self, engine: Engine) -> list[float]:
        """What this rank adds to a sum over ranks, from which ``cost`` reads the step; a number per rank for memory."""
        memory = [0.0] * engine.world_size
        memory[engine.rank] = peak_memory(engine.device)
        return [self._model, self._hardware, float(self._packs), float(self._tokens), *memory]

    def cost(self, over_ranks: Sequence[float], seconds: float) -> Cost:
        """The step that took ``seconds``; its sums begin anew.

        Args:
            over_ranks: sums of ``told``.
        """
        model, hardware, packs, tokens, *memory = over_ranks
        phases, self._phases = self._phases, {}
        if len(memory) == 1:
            phases.pop("ranks", None)  # one process waits for no other: what is left is bookkeeping
        within = sum(time for name, time in phases.items() if name not in ("save", "evaluate"))
        phases["other"] = max(0.0, seconds - within)
        self._clear()
        could = self.peak.flops * len(memory) * max(seconds, 1e-9) if self.peak is not None else 0.0
        known = could > 0 and self.count is not None
        budget = packs * self.tokens_per_pack
        return Cost(
            phases=phases,
            mfu=model / could if known else None,
            hfu=hardware / could if known else None,
            padding=1 - tokens / budget if budget else None,
            memory_gib=max(memory) / GIB,
        )


def peak_memory(device: torch.device) -> float:
    """Bytes: most that tensors held on the GPU of this process, or that this process held in memory."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(used if sys.platform == "darwin" else used * 1024)


def counter_of(model: nn.Module, stage: Stage) -> Counter | None:
    """What counts the packs of ``stage``; None when the config of ``model`` does not say how large it is.

    A reference (the model with adapters off) is one more forward pass of the decoder. Answers that a model writes in
    reinforcement learning are not counted: their time is a phase of its own.
    """
    try:
        costs = model_flops(model)
    except (AttributeError, ValueError, TypeError):
        return None
    trained, adapted = tuple(stage.learning_rate.of_components()), stage.lora.components if stage.lora else ()
    again = checkpointed(model)
    reference = has_reference(stage)

    def count(pack: PackedBatch) -> Counted:
        if isinstance(pack, ContrastivePack):
            forward = _of_pairs(costs, pack)
            found = counted(forward, trained, adapted, again)
            # The first pass of the gradient cache computes what the second one computes again.
            return replace(found, hardware=found.hardware + sum(flops.total for flops in forward.values()))
        return counted(costs.of_pack(pack), trained, adapted, again, reference=reference)

    return count


def _of_pairs(costs: ModelFlops, pack: ContrastivePack) -> dict[str, Flops]:
    """FLOPs of each part: the encoder reads the visuals and the decoder the texts alone; no projector, no logits."""
    text = costs.forward(lengths=pack.text_cu_seqlens.diff().tolist())["text"]
    return dict.fromkeys(PARTS, Flops()) | {"vision": costs.of_pack(pack)["vision"], "text": text}


def has_reference(stage: Stage) -> bool:
    """Whether a step runs the decoder once more, without a gradient and with its adapters off."""
    if stage.preference is not None:
        return stage.preference.needs_reference
    return stage.reinforcement is not None and stage.reinforcement.beta > 0


def counted(
    forward: Mapping[str, Flops],
    trained: Collection[str],
    adapted: Collection[str],
    checkpointed: Collection[str],
    *,
    reference: bool = False,
) -> Counted:
    """Operations of a training step over a pass that costs ``forward``.

    Args:
        trained, adapted: components, as in ``flops.training_flops``.
        checkpointed: components whose forward pass runs again during the backward pass.
        reference: the decoder runs once more without a gradient.
    """
    needed = training_flops(forward, trained, adapted)
    if reference:
        needed += forward["text"].total + forward["head"].total
    moved = {*trained, *adapted}
    order = ("vision", "projector", "text")
    first = min((order.index(name) for name in moved if name in order), default=len(order))
    # Frozen parts before the first that trains keep nothing for a backward pass, so there is nothing to run again.
    again = sum(forward[name].total for name in order[first:] if name in checkpointed)
    return Counted(model=needed, hardware=needed + again)


def checkpointed(model: nn.Module) -> tuple[str, ...]:
    """Components of ``model`` of which a layer computes its activations again in the backward pass."""
    found: dict[str, None] = {}
    for name, module in model.named_modules():
        if name and getattr(module, "gradient_checkpointing", False):
            found[model.component_of(name)] = None  # type: ignore[operator]
    return tuple(found)
