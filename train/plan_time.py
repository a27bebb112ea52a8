"""How long a stage would take on a named GPU, from the operations of its packs; and what that costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from medvlm.data_recipes.packing import Length
from medvlm.model.batch import PackedBatch
from medvlm.model.flops import PARTS, Flops, ModelFlops
from medvlm.train.config import Stage
from medvlm.train.devices import Accelerator
from medvlm.train.throughput import counted, has_reference


@dataclass(frozen=True, kw_only=True)
class Time:
    """What a stage takes on ``processes`` GPUs of one kind.

    Attributes:
        hours: of the clock; GPU-hours are this times the processes.
        assumed_mfu: share of the published peak that is reached.
    """

    gpu: str
    processes: int
    hours: float
    assumed_mfu: float

    @property
    def gpu_hours(self) -> float:
        return self.hours * self.processes


def operations_of(lengths: Iterable[Sequence[Length]], costs: ModelFlops, stage: Stage, real: Scale) -> float:
    """Floating-point operations of training on packs with these samples, recomputation not counted."""
    forward = dict.fromkeys(PARTS, Flops())
    for pack in lengths:
        for name, flops in _of_lengths(pack, costs, stage).items():
            forward[name] += real.of(name, flops)
    trained, adapted = tuple(stage.learning_rate.of_components()), stage.lora.components if stage.lora else ()
    return counted(forward, trained, adapted, (), reference=has_reference(stage)).model


def _of_lengths(pack: Sequence[Length], costs: ModelFlops, stage: Stage) -> dict[str, Flops]:
    # A pair of answers is two rows of which only the sum is known; each visual counts as one grid of all its patches.
    sides = 2 if stage.objective == "preference" else 1
    lengths = [length.tokens // sides for length in pack for _ in range(sides)]
    per_row = costs.patches_per_row
    return costs.forward(
        lengths=lengths,
        grids=[(1, 1, max(1, length.patches // per_row)) for length in pack if length.patches],
        visual_tokens=sum(length.visual_tokens for length in pack),
        logits=sum(length.supervised for length in pack),
    )


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How the operations of real packs compare with those that lengths alone tell.

    Attributes:
        ratios: part -> (linear, attention); attention of the encoder depends on how patches fall into visuals and
            windows of slices, which lengths do not say.
    """

    ratios: dict[str, tuple[float, float]]

    @staticmethod
    def of_packs(
        packs: Sequence[PackedBatch], lengths: Sequence[Sequence[Length]], costs: ModelFlops, stage: Stage
    ) -> Scale:
        """Compare ``packs``, which were read, with what their ``lengths`` tell."""
        real, told = dict.fromkeys(PARTS, Flops()), dict.fromkeys(PARTS, Flops())
        for pack, known in zip(packs, lengths, strict=True):
            for name, flops in costs.of_pack(pack).items():
                real[name] += flops
            for name, flops in _of_lengths(known, costs, stage).items():
                told[name] += flops
        return Scale(
            ratios={
                name: (_ratio(real[name].linear, told[name].linear), _ratio(real[name].attention, told[name].attention))
                for name in PARTS
            }
        )

    def of(self, name: str, flops: Flops) -> Flops:
        """``flops`` of one part as a real pack would have them."""
        linear, attention = self.ratios.get(name, (1.0, 1.0))
        return Flops(linear=flops.linear * linear, attention=flops.attention * attention)


def _ratio(real: float, told: float) -> float:
    return real / told if told else 1.0


def time_of(operations: float, card: Accelerator, mfu: float, processes: int) -> Time:
    """Hours of ``operations`` on ``processes`` GPUs; reading data is not counted, because it should hide behind it."""
    return Time(
        gpu=card.name, processes=processes, assumed_mfu=mfu,
        hours=operations / (card.bf16_flops * mfu * processes) / 3600,
    )  # fmt: skip
