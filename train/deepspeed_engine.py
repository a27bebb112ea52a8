"""DeepSpeedEngine: ZeRO 0 to 3 with torch's AdamW; the DeepSpeed configuration is made from ours."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from medvlm.train.distributed import connect, sum_over_ranks
from medvlm.train.nonfinite import not_finite
from medvlm.train.optim import set_learning_rates
from medvlm.train.rank_state import Belongs, Write, checksum, load_rank_state, save_rank_state
from medvlm.train.settings.engine import EngineConfig
from medvlm.train.universal import load_universal

_TAG = "deepspeed"
_BUCKET = 100_000_000
"""Elements of one reduction or gathering; DeepSpeed's default of 5e8 costs 2 GB of fp32 buffer."""


def deepspeed_config(
    config: EngineConfig, *, gradient_clip: float, micro_batches_per_step: int, world_size: int
) -> dict[str, Any]:
    """The dictionary given to ``deepspeed.initialize``.

    Batch sizes only have to agree with each other: nothing is divided by them (see ``DeepSpeedEngine.backward``).
    """
    zero: dict[str, Any] = {
        "stage": config.zero_stage,
        "reduce_bucket_size": _BUCKET,
        "allgather_bucket_size": _BUCKET,
        "contiguous_gradients": True,
    }
    if config.offload:
        place: dict[str, Any] = {"device": config.offload_to, "pin_memory": torch.cuda.is_available()}
        if config.nvme_path is not None:
            place["nvme_path"] = config.nvme_path
        zero["offload_optimizer"] = place
        if config.offload == "all":
            zero["offload_param"] = dict(place)
    result: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": micro_batches_per_step,
        "train_batch_size": micro_batches_per_step * world_size,
        # ZeRO 0 in fp32 does not report the norm of its gradient: the engine clips there itself.
        "gradient_clipping": gradient_clip if config.zero_stage else 0.0,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "communication_data_type": "fp32",
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }
    if config.precision == "bf16":
        # Without the check ZeRO 1 and 2 would update weights with a gradient that is not finite.
        result["bf16"] = {"enabled": True, "check_grad_overflow": True}
        result["data_types"] = {"grad_accum_dtype": "fp32"}
    return result


def _import_deepspeed(device_type: str) -> Any:
    try:
        import deepspeed
    except ModuleNotFoundError as error:
        if error.name != "deepspeed":
            raise
        raise ModuleNotFoundError(
            "engine.kind is 'deepspeed', but DeepSpeed is not installed; run `pip install 'medvlm[deepspeed]'`, or "
            "set engine.kind: accelerate",
            name="deepspeed",
        ) from error
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # DeepSpeed calls collectives by names that torch 2.13 deprecates, and torch says so at every call.
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.", category=FutureWarning)
    if device_type == "cpu":
        # A shared-memory all-reduce for inference, which training never calls: without this DeepSpeed compiles it
        # at the first start (40 s, and a C++ compiler).
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _require_nvme(folder: Path) -> None:
    """Refuse NVMe where it cannot work: DeepSpeed would say so after the weights are loaded, or not at all.

    Raises:
        ValueError: there is no such folder, or DeepSpeed cannot build what reads and writes it.
    """
    from deepspeed.ops.op_builder import AsyncIOBuilder

    if not folder.is_dir():
        raise ValueError(f"engine.nvme_path is {folder}, which is no folder; name one on a local disk of each machine")
    if not AsyncIOBuilder().is_compatible(verbose=False):
        raise ValueError(
            "engine.offload_to is nvme, but DeepSpeed's async_io operator cannot be built here: it needs libaio with "
            "its headers (apt install libaio-dev) and a C++ compiler; install them, or use offload_to: cpu"
        )


class DeepSpeedEngine:
    """See ``Engine``. With bf16 weights are bf16, and the optimizer holds fp32 masters."""

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
        self.deepspeed = _import_deepspeed(self.device.type)
        if config.offload_to == "nvme":
            _require_nvme(Path(str(config.nvme_path)))
        self.module, self.config, self.gradient_clip = model, config, gradient_clip
        self.names = [group["name"] for group in groups]
        offload = config.offload if config.offload_to == "cpu" else f"{config.offload} to {config.offload_to}"
        self.description = f"deepspeed, ZeRO {config.zero_stage}, {config.precision}, offload {offload}"
        self._frozen: dict[str, int] | None = None
        settings = deepspeed_config(
            config,
            gradient_clip=gradient_clip,
            micro_batches_per_step=micro_batches_per_step,
            world_size=self.world_size,
        )
        fused = self.device.type == "cuda" and not config.offload
        optimizer = torch.optim.AdamW(groups, fused=fused)
        # DeepSpeed reads LOCAL_RANK at start and in ZeRO-3's forward pass, also without a launcher. Accelerate would
        # take it for a launcher's, so close() removes it.
        self._alone = "LOCAL_RANK" not in os.environ
        if self._alone:
            os.environ["LOCAL_RANK"] = "0"
        with contextlib.redirect_stdout(io.StringIO()):  # BF16_Optimizer prints memory tables
            self.model, self.optimizer, _, _ = self.deepspeed.initialize(
                model=model, optimizer=optimizer, config=settings, dist_init_required=False
            )

    def begin_step(self, micro_batches: int) -> None:
        """Nothing: ``backward`` says which micro-batch is the last, and nothing is divided by their number."""

    @contextlib.contextmanager
    def whole_weights(self) -> Iterator[None]:
        if self.config.zero_stage < 3:
            yield
            return
        # ZeRO-3 fetches and lets go of weights by hooks on every layer, in step with the other ranks. Here each rank
        # generates as long as its own answers last, so that weights are gathered once, and the hooks are off.
        offload = self.optimizer.parameter_offload
        with self.deepspeed.zero.GatheredParameters(list(self.module.parameters())):
            for parameter in self.module.parameters():
                parameter.ds_active_sub_modules.clear()  # type: ignore[attr-defined]
            for hook in (*offload.forward_hooks, *offload.backward_hooks):
                hook.remove()
            offload.forward_hooks, offload.backward_hooks = [], []
            try:
                yield
            finally:
                coordinator = offload.param_coordinator
                if not coordinator.is_invalid_trace():
                    coordinator._invalidate_trace()
                offload._register_deepspeed_module(offload.module)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        self.model.set_gradient_accumulation_boundary(last)
        # DeepSpeed averages over ranks: the sum is the average times their number.
        self.model.backward(loss * self.world_size, scale_wrt_gas=False)

    def step(self, learning_rates: Mapping[str, float]) -> float:
        set_learning_rates(self.optimizer.param_groups, self.names, learning_rates)
        norm = None
        if self.config.zero_stage == 0:
            norm = self._clip()
        self.model.step()
        if norm is None:
            norm = float(self.model.get_global_grad_norm())
        if not math.isfinite(norm):  # DeepSpeed has left out the update and forgotten the gradient
            raise not_finite(norm)
        return norm

    def _clip(self) -> float:
        parameters = [p for p in self.module.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        if not math.isfinite(norm):
            self.model.zero_grad()
            raise not_finite(norm)
        if 0 < self.gradient_clip < norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.gradient_clip, torch.tensor(norm))
        return norm

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        return sum_over_ranks(values, self.device)

    def gather_state_dict(
        self, *, only_trainable: bool = False, weights: Literal["model", "master"] = "model"
    ) -> dict[str, Tensor] | None:
        result: dict[str, Tensor] = {}
        kept: dict[int, Tensor | None] = {}
        for name, tensor in self.module.state_dict(keep_vars=True).items():
            trained = tensor.requires_grad
            if only_trainable and not trained:
                continue
            if id(tensor) not in kept:  # tied weights stay one tensor under two names
                kept[id(tensor)] = self._whole(name, tensor, master=weights == "master" and trained)
            whole = kept[id(tensor)]
            if whole is not None:
                result[name] = whole
        return result if self.rank == 0 else None

    def _whole(self, name: str, tensor: Tensor, *, master: bool) -> Tensor | None:
        """One whole tensor on the CPU of rank 0, gathered from all ranks where ZeRO-3 partitions it."""
        shape = getattr(tensor, "ds_shape", tensor.shape)
        whole = None
        if master and self.config.zero_stage > 0:
            from deepspeed.utils import safe_get_full_fp32_param

            value = safe_get_full_fp32_param(tensor)
            if value is None:
                raise RuntimeError(f"DeepSpeed holds no master weights for trainable parameter {name!r}")
            whole = value.view(shape).to("cpu", torch.float32, copy=True) if self.rank == 0 else None
        elif hasattr(tensor, "ds_id"):
            with self.deepspeed.zero.GatheredParameters([tensor]):
                whole = tensor.detach().to("cpu", copy=True) if self.rank == 0 else None
        elif self.rank == 0:
            whole = tensor.detach().to("cpu", copy=True)
        if whole is not None and whole.shape != shape:
            raise RuntimeError(f"gathered {name!r} has shape {tuple(whole.shape)}, the parameter {tuple(shape)}")
        return whole

    def _trainable(self) -> list[str]:
        return [name for name, p in self.module.named_parameters() if p.requires_grad]

    def _frozen_shards(self) -> Iterable[tuple[str, Tensor]]:
        parameter: Any
        for name, parameter in self.module.named_parameters():
            if parameter.requires_grad:
                continue
            shard = getattr(parameter, "ds_tensor", None)
            if shard is None:
                yield name, parameter
                continue
            # The last shard is padded with whatever was in memory.
            size = shard.numel()
            yield name, shard.view(-1)[: max(0, min(size, parameter.ds_numel - self.rank * size))]

    def _frozen_checksums(self) -> dict[str, int]:
        if self._frozen is None:
            self._frozen = checksum(self._frozen_shards())
        return self._frozen

    def _belongs(self) -> Belongs:
        return Belongs(
            engine=self.description, rank=self.rank, world_size=self.world_size, trainable=self._trainable(),
            frozen=self._frozen_checksums(),
        )  # fmt: skip

    def save_state(self, folder: Path, write: Write = torch.save) -> None:
        # DeepSpeed collects the state and names the files; what writes them is ours. It must not write by itself: on a
        # full disk one rank would raise, and the others would wait for it.
        self.model._copy_recovery_script = lambda save_path: None
        self.model.checkpoint_engine.save = lambda state_dict, path: write(state_dict, Path(path))
        self.model.save_checkpoint(str(folder), tag=_TAG, save_latest=False, exclude_frozen_parameters=True)
        save_rank_state(folder, write, self._belongs())
        self.barrier()

    def load_state(self, folder: Path) -> None:
        """See ``Engine``. DeepSpeed's own files are pickles: resume only from folders that you trust."""
        saved = load_rank_state(folder, self._belongs(), self.device, shards=self.config.zero_stage == 3)
        if saved != self.world_size and self.config.zero_stage:
            path = load_universal(self.model, folder / _TAG, rank=self.rank, barrier=self.barrier, device=self.device)
        else:
            # Not strict, because frozen weights are not in the file; load_rank_state has compared both sets of names.
            path, _ = self.model.load_checkpoint(str(folder), tag=_TAG, load_module_strict=False)
        if path is None:
            raise FileNotFoundError(f"{folder / _TAG}: DeepSpeed finds no state there; resume from another step")
        self.barrier()

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()

    def close(self) -> None:
        self.model.destroy()
        if self._alone:
            os.environ.pop("LOCAL_RANK", None)
