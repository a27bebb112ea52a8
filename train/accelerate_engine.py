"""AccelerateEngine: one device, or data parallel over ranks (DDP)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from medvlm.train.distributed import connect, sum_over_ranks
from medvlm.train.engine import check_last
from medvlm.train.nonfinite import not_finite
from medvlm.train.optim import set_learning_rates
from medvlm.train.rank_state import Belongs, Write, checksum, load_rank_state, save_rank_state
from medvlm.train.settings.engine import EngineConfig

_STATE = "state.pt"


class AccelerateEngine:
    """See ``Engine``. Weights stay in fp32; bf16 is autocast of the forward pass."""

    def __init__(
        self,
        config: EngineConfig,
        model: nn.Module,
        groups: list[dict[str, Any]],
        gradient_clip: float,
        micro_batches_per_step: int,
    ) -> None:
        ranks = connect(config.device)
        self.rank, self.world_size, self.device = ranks.rank, ranks.world_size, ranks.device
        self.module, self.gradient_clip = model, gradient_clip
        self.micro_batches, self.done = micro_batches_per_step, 0
        self.parameters = [p for group in groups for p in group["params"]]
        self.optimizer = torch.optim.AdamW(groups, fused=self.device.type == "cuda")
        self.names = [group["name"] for group in groups]
        self.accelerator = Accelerator(
            cpu=self.device.type == "cpu",
            mixed_precision="bf16" if config.precision == "bf16" else "no",
            gradient_accumulation_steps=1,
            kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
        )
        self._check_accelerate(config)
        self.description = f"accelerate, {config.precision}"
        self._frozen: dict[str, int] | None = None
        self.model: nn.Module = self.accelerator.prepare(model)
        self._sync_next()

    def _check_accelerate(self, config: EngineConfig) -> None:
        """Accelerate reads ACCELERATE_* variables and earlier states of the process, and changes course silently."""
        expected = DistributedType.NO
        if self.world_size > 1:
            expected = DistributedType.MULTI_GPU if self.device.type == "cuda" else DistributedType.MULTI_CPU
        found, wanted = self.accelerator, "bf16" if config.precision == "bf16" else "no"
        for name, is_, should in (
            ("distributed_type", found.distributed_type, expected),
            ("num_processes", found.num_processes, self.world_size),
            ("device", found.device.type, self.device.type),
            ("mixed_precision", found.mixed_precision, wanted),
            ("gradient_accumulation_steps", found.gradient_accumulation_steps, 1),
        ):
            if is_ != should:
                raise RuntimeError(
                    f"accelerate chose {name} {is_}, the configuration asks for {should}; unset the ACCELERATE_* "
                    "variables of the environment and start through torchrun"
                )

    def _sync_next(self) -> None:
        """Let the next forward and backward pass exchange gradients only when it is the last one of the step."""
        if isinstance(self.model, DistributedDataParallel):
            self.model.require_backward_grad_sync = self.done == self.micro_batches - 1

    def begin_step(self, micro_batches: int) -> None:
        self.micro_batches, self.done = micro_batches, 0
        self._sync_next()

    def whole_weights(self) -> AbstractContextManager[None]:
        return nullcontext()

    def backward(self, loss: Tensor, *, last: bool) -> None:
        self.done += 1
        check_last(self.done, self.micro_batches, last=last)
        # DDP averages over ranks: the sum is the average times their number.
        loss = loss * self.world_size
        if isinstance(self.model, DistributedDataParallel) and last and not self.model.require_backward_grad_sync:
            with self.accelerator.trigger_sync_in_backward(self.model):
                self.accelerator.backward(loss)
        else:
            self.accelerator.backward(loss)
        if not last:
            self._sync_next()

    def step(self, learning_rates: Mapping[str, float]) -> float:
        set_learning_rates(self.optimizer.param_groups, self.names, learning_rates)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if math.isfinite(norm):
            if 0 < self.gradient_clip < norm:
                torch.nn.utils.clip_grads_with_norm_(self.parameters, self.gradient_clip, torch.tensor(norm))
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done = 0
        self._sync_next()
        if not math.isfinite(norm):
            raise not_finite(norm)
        return norm

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        return sum_over_ranks(values, self.device)

    def gather_state_dict(
        self, *, only_trainable: bool = False, weights: Literal["model", "master"] = "model"
    ) -> dict[str, Tensor] | None:
        if self.rank != 0:
            return None
        trainable = {id(p) for p in self.parameters}
        kept: dict[int, Tensor] = {}
        result = {}
        for name, tensor in self.module.state_dict(keep_vars=True).items():
            if only_trainable and id(tensor) not in trainable:
                continue
            # Tied weights stay one tensor under two names.
            result[name] = kept.setdefault(id(tensor), tensor.detach().to("cpu", copy=True))
        return result

    def _trainable(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def _frozen_checksums(self) -> dict[str, int]:
        if self._frozen is None:
            self._frozen = checksum((n, p) for n, p in self.module.named_parameters() if not p.requires_grad)
        return self._frozen

    def _belongs(self) -> Belongs:
        return Belongs(
            engine=self.description, rank=self.rank, world_size=self.world_size, trainable=list(self._trainable()),
            frozen=self._frozen_checksums(),
        )  # fmt: skip

    def save_state(self, folder: Path, write: Write = torch.save) -> None:
        trainable = self._trainable()
        if self.rank == 0:
            weights = {name: p.detach() for name, p in trainable.items()}
            buffers = dict(self.module.named_buffers())
            state = {"weights": weights, "buffers": buffers, "optimizer": self.optimizer.state_dict()}
            write(state, folder / _STATE)
        save_rank_state(folder, write, self._belongs())
        self.barrier()

    def load_state(self, folder: Path) -> None:
        trainable = self._trainable()
        load_rank_state(folder, self._belongs(), self.device)
        state = torch.load(folder / _STATE, map_location="cpu", weights_only=True)
        with torch.no_grad():
            for name, parameter in trainable.items():
                parameter.copy_(state["weights"][name])
            for name, buffer in self.module.named_buffers():
                buffer.copy_(state["buffers"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.barrier()

    def barrier(self) -> None:
        if dist.is_initialized() and self.world_size > 1:
            dist.barrier()

    def close(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.model = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.accelerator.free_memory()
        # Accelerate keeps its choices for the life of the process; another stage may choose otherwise.
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()
