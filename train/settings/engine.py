"""EngineConfig: what moves the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medvlm.train.settings.checks import check_range, refuse


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """What moves the weights.

    Attributes:
        kind: "deepspeed" (ZeRO), or "accelerate" (one device, or data parallel).
        zero_stage: what ZeRO partitions (Rajbhandari et al. 2020): 0 nothing, 1 optimizer state, 2 also
            gradients,
            3 also weights. Only for deepspeed.
        precision: "fp32", or "bf16": weights in bf16 with fp32 masters (deepspeed), autocast (accelerate).
        offload: keep optimizer state in host memory. Only for deepspeed with zero_stage of 1 or more.
        gradient_clip: largest global L2 norm of the gradient; 0 does not clip.
        device: "auto" takes CUDA when there is one.
        activation_checkpointing: compute activations again in the backward pass instead of keeping them.
    """

    kind: Literal["deepspeed", "accelerate"] = "accelerate"
    zero_stage: Literal[0, 1, 2, 3] = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    offload: bool = False
    gradient_clip: float = 1.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        check_range("gradient_clip", self.gradient_clip, 0)
        if self.kind == "accelerate" and (self.zero_stage or self.offload):
            name = "zero_stage" if self.zero_stage else "offload"
            refuse(f"{name} is set, but the engine is 'accelerate', which has no ZeRO", "use kind: deepspeed")
        if self.kind == "deepspeed" and self.zero_stage == 0 and self.precision == "bf16":
            refuse(
                "DeepSpeed trains ZeRO stage 0 in bf16 with another optimizer wrapper than stages 1 to 3, and "
                "its losses differ from theirs",
                "use zero_stage: 1 (equal memory on one process), or precision: fp32",
            )
        if self.offload and self.zero_stage == 0:
            refuse("offload needs ZeRO", "use zero_stage: 1, 2 or 3, or offload: false")
