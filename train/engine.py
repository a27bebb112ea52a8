"""Engine: what the loop needs of whatever moves the weights, and the choice of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from medvlm.train.rank_state import Write
from medvlm.train.settings.engine import EngineConfig

Weights = Literal["model", "master"]


class Engine(Protocol):
    """Weights, gradients and optimizer of one stage, on this rank.

    Division happens in one place only: the caller divides the loss sum by the number of supervised tokens of the
    whole step, over all ranks and micro-batches. The gradient is then the plain sum over micro-batches and RANKS of
    what ``backward`` is given; engines that average over ranks undo it.

    Attributes:
        model: call this for the forward pass; not the module that was passed in.
        module: the module that was passed in; under ZeRO-3 its parameters are empty outside of a forward pass,
            and under DeepSpeed with bf16 they are bf16: the network casts its inputs.
        device: where inputs must be.
    """

    model: nn.Module
    module: nn.Module
    rank: int
    world_size: int
    device: torch.device

    def begin_step(self, micro_batches: int) -> None:
        """Say how many calls of ``backward`` the next step has, where that differs from step to step.

        All ranks must call it with the same number, before the forward pass of the first.
        """

    def whole_weights(self) -> AbstractContextManager[None]:
        """Inside, ``module`` holds whole weights and may be called by each rank as it likes, without a gradient: for
        generation. All ranks must enter it, and leave it, at the same time."""

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradient of the scalar ``loss``; ``last`` marks the last micro-batch of the step.

        All ranks must call it equally often.
        """

    def step(self, learning_rates: Mapping[str, float]) -> float:
        """Set the learning rate of each group by its name, clip, update, and forget the gradient.

        Returns:
            L2 norm of the whole gradient before clipping.

        Raises:
            ValueError: a group without a learning rate.
            FloatingPointError: the norm is NaN or infinite; on every rank, without an update. The gradient is
                forgotten and the next step may follow.
        """

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Element-wise sum over ranks, in float64."""

    def gather_state_dict(
        self, *, only_trainable: bool = False, weights: Weights = "model"
    ) -> dict[str, Tensor] | None:
        """Whole weights on the CPU of rank 0, None on the others; all ranks must call it.

        Args:
            only_trainable: leave out frozen parameters and buffers.
            weights: "master" gives trainable parameters in fp32 as the optimizer holds them.

        Raises:
            RuntimeError: a gathered tensor is not as large as the parameter.
        """

    def save_state(self, folder: Path, write: Write = torch.save) -> None:
        """Hand over all that an exact resume needs besides frozen weights: trainable weights, optimizer, random state.

        All ranks must call it, with the same existing folder.

        Args:
            write: called with each file's content and path. The content holds tensors that the next step changes. It
                must not raise: a rank that stopped in the middle would leave the others waiting.
        """

    def load_state(self, folder: Path) -> None:
        """Load what ``save_state`` wrote.

        Raises:
            ValueError: other trainable parameters, or other frozen weights.
        """

    def barrier(self) -> None:
        """Wait for all ranks."""

    def close(self) -> None:
        """Let go of memory and hooks; the model must not be used after it. The process group stays."""


def check_last(done: int, micro_batches: int, *, last: bool) -> None:
    """Refuse micro-batch number ``done`` (from 1) that should be the ``last`` one of a step and is not marked so.

    Raises:
        ValueError: see above.
    """
    if not last and done >= micro_batches:
        raise ValueError(
            f"micro-batch {done} of {micro_batches} is not marked as the last; make the engine with the "
            "number of micro-batches that a step has"
        )


def make_engine(
    config: EngineConfig,
    model: nn.Module,
    groups: Sequence[Mapping[str, Any]],
    gradient_clip: float | None = None,
    micro_batches_per_step: int = 1,
) -> Engine:
    """The engine that ``config`` asks for.

    Args:
        model: on any device, with whole weights in fp32; the engine moves (and for bf16 under DeepSpeed, casts) it.
        groups: of ``parameter_groups``; they are copied.
        gradient_clip: instead of ``config.gradient_clip``; 0 does not clip.
        micro_batches_per_step: calls of ``backward`` before each ``step``; a step may end earlier, and ``begin_step``
            may say otherwise.

    Raises:
        ModuleNotFoundError: DeepSpeed is asked for and not installed.
        ValueError: no such device.
    """
    clip = config.gradient_clip if gradient_clip is None else gradient_clip
    copies = [dict(group, params=list(group["params"])) for group in groups]
    # Imported here, because either library may be absent and both take seconds to import.
    if config.kind == "deepspeed":
        from medvlm.train.deepspeed_engine import DeepSpeedEngine

        return DeepSpeedEngine(config, model, copies, clip, micro_batches_per_step)
    if config.kind == "fsdp":
        from medvlm.train.fsdp_engine import FsdpEngine

        return FsdpEngine(config, model, copies, clip, micro_batches_per_step)
    from medvlm.train.accelerate_engine import AccelerateEngine

    return AccelerateEngine(config, model, copies, clip, micro_batches_per_step)
