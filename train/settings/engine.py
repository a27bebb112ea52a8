"""EngineConfig: what moves the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medvlm.train.settings.checks import aside, check_range, later, refuse

Part = Literal["vision", "text"]
"""The components that have layers."""


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """What moves the weights.

    Attributes:
        kind: "deepspeed" (ZeRO), "fsdp" (torch's FSDP2: weights, gradients and optimizer divided as under ZeRO-3), or
            "accelerate" (one device, or data parallel).
        zero_stage: what ZeRO partitions (Rajbhandari et al. 2020): 0 nothing, 1 optimizer state, 2 also
            gradients,
            3 also weights. Only for deepspeed.
        precision: "fp32", or "bf16": weights in bf16 with fp32 masters (deepspeed, fsdp), autocast (accelerate).
        offload: "optimizer" (or true) keeps the state of the optimizer outside of the GPU, "all" also the weights
            (Rajbhandari et al. 2021, arXiv:2104.07857); "none" (or false). Only for deepspeed, with zero_stage of 1 or
            more, and 3 for "all".
        offload_to: "cpu", host memory; or "nvme", files in ``nvme_path`` on a fast disk of each machine. zero_stage 3.
        sequence_parallel: processes that share one pack, each with a part of its tokens (DeepSpeed Ulysses: Jacobs et
            al. 2023, arXiv:2309.14509); must divide the number of processes.
        gradient_clip: largest global L2 norm of the gradient; 0 does not clip.
        device: "auto" takes CUDA when there is one.
        activation_checkpointing: compute activations again in the backward pass instead of keeping them: true, or the
            components whose activations are. What no gradient passes through keeps none anyway.
        compile: components whose norms and feed-forward blocks torch.compile makes one program of each. Not under
            ZeRO-3 and FSDP.
        attention: "auto" takes flash-attn where it is installed and GPU and precision allow it, else torch's own; a
            name forces one.
        preflight: run the largest packs before the first step, without an update, so that what does not fit shows then.
        save_async: copy states to host memory and write them while training goes on.
        hang_minutes: how long a rank may stand at one place before the one that is behind is named and all end.
    """

    kind: Literal["deepspeed", "accelerate", "fsdp"] = "accelerate"
    zero_stage: Literal[0, 1, 2, 3] = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    offload: Literal[False, True, "none", "optimizer", "all"] = False
    offload_to: Literal["cpu", "nvme"] = later("cpu")
    nvme_path: str | None = aside(None)
    sequence_parallel: int = later(1)
    gradient_clip: float = 1.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    activation_checkpointing: bool | tuple[Part, ...] = False
    compile: tuple[Part, ...] = later(())
    attention: Literal["auto", "sdpa", "flash_attention_2", "eager"] = later("auto")
    preflight: bool = aside(True)
    save_async: bool = aside(True)
    hang_minutes: float = aside(30.0)

    def __post_init__(self) -> None:
        check_range("gradient_clip", self.gradient_clip, 0)
        check_range("hang_minutes", self.hang_minutes, 0.01)
        # The words came after the boolean: older trainings keep their fingerprint.
        plain = {"none": False, "optimizer": True}.get(str(self.offload), self.offload)
        object.__setattr__(self, "offload", plain)
        check_range("sequence_parallel", self.sequence_parallel, 1)
        if self.kind != "deepspeed" and (self.zero_stage or self.offload):
            name = "zero_stage" if self.zero_stage else "offload"
            refuse(f"{name} is set, but the engine is {self.kind!r}, which has no ZeRO", "use kind: deepspeed")
        if self.kind == "deepspeed" and self.zero_stage == 0 and self.precision == "bf16":
            refuse(
                "DeepSpeed trains ZeRO stage 0 in bf16 with another optimizer wrapper than stages 1 to 3, and "
                "its losses differ from theirs",
                "use zero_stage: 1 (equal memory on one process), or precision: fp32",
            )
        if self.compile and self.divides_weights:
            refuse(
                f"engine.compile is set, but {self.divides_weights} gathers the weights of each part while it runs, "
                "which torch.compile would not see",
                "set compile: [], or use accelerate, or deepspeed with zero_stage 0 to 2",
            )
        self._check_offload()

    @property
    def divides_weights(self) -> str:
        """What leaves each process with a part of the weights only: "ZeRO-3", "FSDP", or ""."""
        return "FSDP" if self.kind == "fsdp" else "ZeRO-3" if self.zero_stage == 3 else ""

    def _check_offload(self) -> None:
        if self.offload and self.zero_stage == 0:
            refuse("offload needs ZeRO", "use zero_stage: 1, 2 or 3, or offload: none")
        if self.offload == "all" and self.zero_stage != 3:
            refuse(
                f"offload: all moves the weights away, but ZeRO {self.zero_stage} keeps them whole on every GPU",
                "use zero_stage: 3, or offload: optimizer",
            )
        if (self.offload_to == "nvme") != (self.nvme_path is not None):
            refuse("offload_to: nvme and nvme_path need each other", "set both, or neither")
        if self.offload_to == "nvme" and not (self.offload and self.zero_stage == 3):
            refuse("offload_to is nvme, which ZeRO-3 alone can read", "set offload: optimizer or all and zero_stage: 3")
