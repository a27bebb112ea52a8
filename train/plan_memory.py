"""What one process of a stage holds in memory, part by part, from shapes and settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from medvlm.model.chunked_loss import FEWEST_ROWS
from medvlm.model.config import MedVLMConfig, VisionConfig
from medvlm.model.loading import Model
from medvlm.train.config import Curriculum, Stage
from medvlm.train.devices import Accelerator
from medvlm.train.lora import component_of
from medvlm.train.settings.engine import EngineConfig

GIB = 2**30
NF4_BYTES = 0.5 + 0.127 / 8
"""Of a number in 4 bits with double quantisation (Dettmers et al. 2023, arXiv:2305.14314, section 3)."""
BUCKET = 100_000_000
"""Numbers that DeepSpeed reduces or gathers at once, as train.deepspeed_engine sets it."""
RESERVE_BYTES = 1.5e9
"""Of a GPU that no tensor gets: context, kernels, libraries of communication."""
FRAGMENTED = 1.05
"""What an allocator holds for each byte that is asked for."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """GiB of one process.

    Attributes:
        parts: on the device: weights, masters, gradients, optimizer, activations, logits, buffers.
        host: beside it in host memory (or on NVMe), of what is offloaded.
    """

    parts: dict[str, float]
    host: float = 0.0

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    def needed(self) -> float:
        """GiB that a GPU must have."""
        return self.total * FRAGMENTED + RESERVE_BYTES / GIB

    def fits(self, card: Accelerator) -> bool:
        """Whether a GPU of this kind has room for it."""
        return self.needed() * GIB <= card.memory_bytes


def estimate_memory(model: Model, curriculum: Curriculum, stage: Stage, world_size: int) -> Memory:
    """What one of ``world_size`` processes holds while it trains a full pack of ``stage``.

    ZeRO divides the optimizer (stage 1), gradients (2) and weights (3) by the number of processes (Rajbhandari et al.
    2020, arXiv:1910.02054, section 3). Activations are counted layer by layer from what autograd keeps; see
    ``numbers_kept``. An estimate: libraries choose kernels with workspaces of their own.

    Args:
        model: empty, with the adapters and trainable parameters of ``stage``.
    """
    engine, data = curriculum.engine, curriculum.data
    half = engine.precision == "bf16"
    zero = {"deepspeed": engine.zero_stage, "fsdp": 3}.get(engine.kind, 0)
    shared = [1 if zero >= level else 0 for level in (1, 2, 3)]
    divide = [world_size if level else 1 for level in shared]
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    quantised = sum(quantised_numbers(model, stage)) if stage.lora is not None and stage.lora.quantize else 0
    stored = 2 if half and engine.kind == "deepspeed" else 4
    parts = {"weights": ((trained + frozen - quantised) * stored + quantised * NF4_BYTES) / divide[2]}
    optimizer = trained * 8 / divide[0]
    if stored == 2:
        parts["masters"] = trained * 4 / divide[0]
        # In bf16 gradients are added up in fp32, whole under ZeRO 1 (DeepSpeed's BF16_Optimizer), else a share.
        gradients = trained * (2 + 4) if zero <= 1 else trained * 4 / divide[1]
    else:
        gradients = trained * 4 / divide[1]
    parts["gradients"], parts["optimizer"] = gradients, optimizer
    host = 0.0
    if engine.offload:
        host = parts.pop("optimizer") + parts.pop("masters", 0.0)
    if engine.offload == "all":
        host += parts.pop("weights")
    gathered = 2 if half and engine.kind == "fsdp" else stored
    parts["buffers"] = buffers(
        model, trained, gathered, zero, world_size, autocast=half and engine.kind == "accelerate"
    )
    if engine.kind == "fsdp" and world_size > 1:  # what is in no layer stays whole from forward to backward
        inside = sum(p.numel() for layer in _layers(model) for p in layer.parameters())
        parts["buffers"] += (trained + frozen - inside) * gathered
    parts["activations"] = activations(model, curriculum, stage)
    parts["logits"] = logits(model, data.tokens_per_pack)
    return Memory(parts={name: size / GIB for name, size in parts.items()}, host=host / GIB)


def quantised_numbers(model: Model, stage: Stage) -> Iterator[int]:
    """Sizes of the weights that ``lora.quantize`` keeps in 4 bits."""
    assert stage.lora is not None
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        adapted = component_of(model, name) in stage.lora.components
        if type(module) is nn.Linear and module is not head and "lora_" not in name and adapted:
            yield module.weight.numel()


def buffers(model: Model, trained: int, stored: int, zero: int, world_size: int, *, autocast: bool) -> float:
    """Bytes of what engines hold beside weights and gradients."""
    if zero == 0:
        # Autocast keeps bf16 copies of the weights of matrices until the backward pass is over.
        matrices = sum(p.numel() for p in model.parameters() if p.ndim > 1)
        return 2.0 * matrices if autocast else 0.0
    if world_size == 1:
        return float(min(trained, BUCKET) * stored)
    reduced = min(trained, BUCKET) * (stored + 4)  # the bucket, and its copy in fp32 that is communicated
    if zero < 3:
        return float(reduced + min(trained, BUCKET) * stored)
    total = sum(p.numel() for p in model.parameters())
    largest = max((sum(p.numel() for p in m.parameters()) for m in _layers(model)), default=0)
    # Two layers whole at a time: one computes, one is gathered meanwhile.
    return float(reduced + min(total, 2 * largest + 50_000_000) * stored)


def _layers(model: Model) -> Iterator[nn.Module]:
    for module in model.modules():
        if isinstance(module, nn.ModuleList):
            yield from module


def activations(model: Model, curriculum: Curriculum, stage: Stage) -> float:
    """Bytes that the forward pass of a full pack keeps for the backward pass."""
    data, width = curriculum.data, 2 if curriculum.engine.precision == "bf16" else 4
    again = checkpointed_components(curriculum.engine)
    moved = set(stage.learning_rate.of_components()) | set(stage.lora.components if stage.lora else ())
    # Processes that share a pack each run the encoder on all of it, and the decoder on their tokens.
    tokens = -(-data.tokens_per_pack // curriculum.engine.sequence_parallel)
    rows = {"vision": data.patches_per_pack, "text": tokens}
    held, behind = 0.0, False
    for component, (hidden, layers) in model.sizes().items():
        behind = behind or component in moved or (component == "text" and "projector" in moved)
        kept = numbers_kept(model, component, hidden, trains=component in moved) * width
        if not behind:
            # Nothing is kept without a gradient: one layer at work.
            held = max(held, rows[component] * kept)
        elif component in again:
            held += rows[component] * (kept + layers * hidden * width)
        else:
            held += rows[component] * layers * kept
    return held


def numbers_kept(model: Model, component: str, hidden: int, *, trains: bool) -> float:
    """Numbers that one layer of ``component`` keeps for each token or patch, attention being fused.

    Two norms with their inputs in fp32; what goes into the maps of query, key and value; query and key before and after
    their rotation, value, and the result of attention; what goes into and out of each map of the MLP. A frozen map
    keeps nothing of its input.
    """
    config = _config(model, component)
    heads = getattr(config, "num_attention_heads", None)
    inner = getattr(config, "intermediate_size", None)
    if heads is None or inner is None:
        return 17.0 * hidden  # Korthikanti et al. 2022, arXiv:2205.05198, equation 1: 34 bytes of 2 a number
    head = getattr(config, "head_dim", None) or hidden // heads
    query, key = heads * head, (getattr(config, "num_key_value_heads", None) or heads) * head
    experts = getattr(config, "num_experts_per_tok", None) or 1
    inner = experts * (getattr(config, "moe_intermediate_size", None) or inner) if experts > 1 else inner
    gated = getattr(config, "mlp", "gated") == "gated"
    norms = 4 * hidden + (2 * hidden if trains else 0)
    attention = 3 * query + 3 * key
    mlp = (3 if gated else 1) * inner + (inner if trains else 0)
    return float(norms + attention + mlp)


def _config(model: Model, component: str) -> Any:
    if component == "text":
        return model.config.get_text_config()
    vision = getattr(model.config, "vision_config", None)
    own = isinstance(model.config, MedVLMConfig)
    return vision if not own or isinstance(vision, VisionConfig) else None


def logits(model: Model, tokens: int) -> float:
    """Bytes of the logits that are there at once: some rows at a time, their softmax, and the gradient of both."""
    head: Any = model.get_output_embeddings()
    vocabulary, hidden = head.weight.shape
    trained = head.weight.requires_grad
    # As model.chunked_loss._parts divides them.
    rows = min(tokens, max(FEWEST_ROWS, -(-tokens * hidden // vocabulary), hidden // 4 if trained else 0))
    held = 3.0 * rows * vocabulary * 4
    if trained:
        held += vocabulary * hidden * 4  # its gradient is made in the forward pass
    return held


def what_would_fit(model: Model, curriculum: Curriculum, stage: Stage, world_size: int, card: Accelerator) -> list[str]:
    """Changes of the configuration after which ``stage`` fits ``card``, the least costly first."""
    engine, data = curriculum.engine, curriculum.data
    found: list[str] = []

    def try_one(says: str, changed: Curriculum, processes: int = world_size) -> None:
        if estimate_memory(model, changed, stage, processes).fits(card):
            found.append(says)

    again = replace(curriculum, engine=_with_checkpointing(engine))
    if again != curriculum:
        try_one("engine.activation_checkpointing: true", again)
    for part in (2, 4, 8):
        tokens, patches = data.tokens_per_pack // part, data.patches_per_pack // part
        smaller = replace(again, data=replace(data, tokens_per_pack=max(1, tokens), patches_per_pack=max(1, patches)))
        before = len(found)
        try_one(f"activation checkpointing, and data.tokens_per_pack: {tokens}, patches_per_pack: {patches}", smaller)
        if len(found) > before:
            break
    quantised = stage.lora is not None and stage.lora.quantize is not None
    for level in (2, 3):
        if level == 3 and quantised:
            continue
        for processes in (world_size, 2, 4, 8, 16, 32, 64):
            if processes < world_size or (found and processes > 8 * world_size):
                continue
            divided = replace(engine, kind="deepspeed", zero_stage=level, precision="bf16")
            before = len(found)
            try_one(
                f"engine: {{kind: deepspeed, zero_stage: {level}, precision: bf16}} with activation checkpointing on "
                f"{processes} processes",
                replace(curriculum, engine=_with_checkpointing(divided)),
                processes,
            )
            if len(found) > before:
                break
    if not engine.offload:
        moved = replace(engine, kind="deepspeed", zero_stage=max(2, engine.zero_stage), precision="bf16", offload=True)
        try_one(
            "engine.offload: true with ZeRO 2 and activation checkpointing, slower",
            replace(curriculum, engine=_with_checkpointing(moved)),
        )  # fmt: skip
    return list(dict.fromkeys(found))


def _with_checkpointing(engine: EngineConfig) -> EngineConfig:
    return engine if len(checkpointed_components(engine)) == 2 else replace(engine, activation_checkpointing=True)


def checkpointed_components(engine: EngineConfig) -> tuple[str, ...]:
    """Components whose layers compute their activations again in the backward pass: vision, text, both or none."""
    asked = engine.activation_checkpointing
    if isinstance(asked, bool):
        return ("vision", "text") if asked else ()
    return tuple(name for name in ("vision", "text") if name in asked)
