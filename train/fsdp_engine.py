"""FsdpEngine: weights, gradients and optimizer divided among ranks by torch's FSDP2, without DeepSpeed.

``fully_shard`` is called directly: Accelerate 1.15 offers FSDP on accelerators only, so that through it nothing here
could be tested on a CPU, and its wrapper would decide what this file decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from medvlm.train.distributed import connect, sum_over_ranks
from medvlm.train.engine import check_last
from medvlm.train.nonfinite import not_finite
from medvlm.train.optim import set_learning_rates
from medvlm.train.rank_state import Belongs, Write, checksum, load_rank_state, save_rank_state
from medvlm.train.settings.engine import EngineConfig


def _path(folder: Path, rank: int) -> Path:
    return folder / f"fsdp-{rank:05d}.pt"


def units(model: nn.Module) -> list[nn.Module]:
    """The modules that are gathered one after the other: the layers that transformers says must not be split."""
    names = {name for module in model.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    return [module for module in model.modules() if type(module).__name__ in names and module is not model]


class FsdpEngine:
    """See ``Engine``. Weights are sharded in fp32; with bf16 they are gathered, and computed with, in bf16."""

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
        self.gradient_clip = gradient_clip
        self.micro_batches, self.done = micro_batches_per_step, 0
        self.description = f"fsdp, {config.precision}"
        self._frozen: dict[str, int] | None = None
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        chosen = [[names[id(parameter)] for parameter in group["params"]] for group in groups]
        half = config.precision == "bf16"
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if half else None, reduce_dtype=torch.float32,
            # The network casts its inputs itself: millimetres in bf16 would be other places.
            cast_forward_inputs=False,
        )  # fmt: skip
        mesh = init_device_mesh(self.device.type, (self.world_size,))
        for unit in units(model):
            fully_shard(unit, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh, mp_policy=policy)
        # Buffers and what has no parameter stay where they are until now.
        self.model: nn.Module = model.to(self.device)
        self.module = self.model
        self.sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
        for module in self.sharded:
            # The gradient is the SUM over ranks.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
        # Sharding has put other parameters in the place of those that the groups were made with.
        found = dict(model.named_parameters())
        for group, members in zip(groups, chosen, strict=True):
            group["params"] = [found[name] for name in members]
        self.names = [group["name"] for group in groups]
        self.optimizer = torch.optim.AdamW(groups, fused=self.device.type == "cuda")

    def begin_step(self, micro_batches: int) -> None:
        self.micro_batches, self.done = micro_batches, 0

    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        inner = [module for module in self.sharded if module is not self.model]
        for module in self.sharded:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in self.sharded:
                module.reshard()
            for module in inner:
                module.set_reshard_after_forward(True, recurse=False)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        self.done += 1
        check_last(self.done, self.micro_batches, last=last)
        # Every micro-batch is reduced at once: whole gradients that wait for the last one would take the memory that
        # sharding saves.
        loss.backward()

    def _local_gradients(self) -> list[Tensor]:
        parameters = (p for group in self.optimizer.param_groups for p in group["params"])
        return [cast(DTensor, p.grad).to_local() for p in parameters if p.grad is not None]

    def step(self, learning_rates: Mapping[str, float]) -> float:
        set_learning_rates(self.optimizer.param_groups, self.names, learning_rates)
        gradients = self._local_gradients()
        square = sum((gradient.double().square().sum() for gradient in gradients), torch.zeros((), dtype=torch.float64))
        norm = math.sqrt(float(self.sum_over_ranks(square)))
        if math.isfinite(norm):
            if 0 < self.gradient_clip < norm:
                for gradient in gradients:
                    gradient.mul_(self.gradient_clip / (norm + 1e-6))  # as torch.nn.utils.clip_grad_norm_
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done = 0
        if not math.isfinite(norm):
            raise not_finite(norm)
        return norm

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        return sum_over_ranks(values, self.device)

    def gather_state_dict(
        self, *, only_trainable: bool = False, weights: Literal["model", "master"] = "model"
    ) -> dict[str, Tensor] | None:
        self._reshard()
        kept: dict[int, Tensor] = {}
        result = {}
        for name, tensor in self.module.state_dict(keep_vars=True).items():
            if only_trainable and not tensor.requires_grad:
                continue
            if id(tensor) not in kept:  # tied weights stay one tensor under two names
                whole = tensor.detach()
                whole = whole.full_tensor() if isinstance(whole, DTensor) else whole
                if whole.shape != tensor.shape:
                    raise RuntimeError(f"gathered {name!r} has shape {tuple(whole.shape)}, not {tuple(tensor.shape)}")
                kept[id(tensor)] = whole.to("cpu", copy=True) if self.rank == 0 else torch.empty(0)
            result[name] = kept[id(tensor)]
        return result if self.rank == 0 else None

    def _reshard(self) -> None:
        """The root keeps its weights whole between forward and backward; after an evaluation no backward comes."""
        for module in self.sharded:
            module.reshard()

    def _trainable(self) -> dict[str, DTensor]:
        return {name: cast(DTensor, p) for name, p in self.module.named_parameters() if p.requires_grad}

    def _frozen_checksums(self) -> dict[str, int]:
        if self._frozen is None:
            frozen = ((n, cast(DTensor, p)) for n, p in self.module.named_parameters() if not p.requires_grad)
            self._frozen = checksum((name, parameter.to_local()) for name, parameter in frozen)
        return self._frozen

    def _belongs(self) -> Belongs:
        return Belongs(
            engine=self.description, rank=self.rank, world_size=self.world_size, trainable=list(self._trainable()),
            frozen=self._frozen_checksums(),
        )  # fmt: skip

    def save_state(self, folder: Path, write: Write = torch.save) -> None:
        """See ``Engine``. One file for each rank, with its part of every tensor; plain tensors, no pickled objects."""
        self._reshard()
        trainable = self._trainable()
        optimizer = {
            name: {key: _local(value) for key, value in self.optimizer.state[parameter].items()}
            for name, parameter in trainable.items()
        }
        state = {
            "weights": {name: parameter.to_local().detach() for name, parameter in trainable.items()},
            "buffers": dict(self.module.named_buffers()),
            "optimizer": optimizer,
        }
        write(state, _path(folder, self.rank))
        save_rank_state(folder, write, self._belongs())
        self.barrier()

    def load_state(self, folder: Path) -> None:
        """See ``Engine``. Another number of ranks may have saved it: parts are put together and divided anew."""
        self._reshard()
        trainable = self._trainable()
        saved = load_rank_state(folder, self._belongs(), self.device, shards=True)
        ranks = [self.rank] if saved == self.world_size else range(saved)
        # Mapped into memory, so that a rank reads what it takes of the files of others.
        states = [torch.load(_path(folder, r), map_location="cpu", weights_only=True, mmap=True) for r in ranks]
        with torch.no_grad():
            for name, parameter in trainable.items():
                parameter.to_local().copy_(self._my_part([state["weights"][name] for state in states], parameter))
                parts = [state["optimizer"][name] for state in states]
                self.optimizer.state[parameter] = {
                    key: self._state_of(key, [part[key] for part in parts], parameter) for key in parts[0]
                }
            for name, buffer in self.module.named_buffers():
                buffer.copy_(states[0]["buffers"][name])
        self.barrier()

    def _state_of(self, key: str, parts: list[Tensor], parameter: DTensor) -> Tensor:
        if key == "step":  # a number, the same on all ranks; the fused kernel of a GPU reads it there
            return parts[0].to(self.device, copy=True)
        mine = self._my_part(parts, parameter).to(self.device, copy=True)
        return DTensor.from_local(
            mine, parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
        )

    def _my_part(self, parts: list[Tensor], parameter: DTensor) -> Tensor:
        """This rank's rows of a tensor that lies in ``parts``, as ``Shard(0)`` divides it."""
        if len(parts) == 1 and parts[0].shape == parameter.to_local().shape:
            return parts[0]
        pieces = torch.cat(parts).chunk(self.world_size)
        return pieces[self.rank] if self.rank < len(pieces) else parts[0][:0]

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()

    def close(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()
        self._reshard()


def _local(value: Any) -> Any:
    return value.to_local() if isinstance(value, DTensor) else value
