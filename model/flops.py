"""FLOPs of a pass, part by part, from the shapes of a model: what MFU, plans and the balance over ranks count with.

One multiplication and one addition are two FLOPs; only products of matrices and attention count, as torch's
FlopCounterMode has it. With the lengths L of the samples, the patches P of the visuals and N visual tokens:

    text       2 * weights * sum(L)       + 4 * layers * heads * head_dim * sum(L * (L + 1) / 2)
    head       2 * vocabulary * hidden * positions whose logits are made
    vision     2 * weights * P            + 4 * layers * hidden * pairs
    projector  2 * weights * N            + attention of those with queries

``weights`` are the numbers in the linear maps that a token passes (of the experts of a mixture: those it is sent to).
A pair is a query and a key that it sees: causal attention has half of the square, which is what fused kernels
compute; FlopCounterMode counts the whole. Windows of decoders are not looked at. ``pairs`` of the encoder is
``AttentionPlan.pairs``. Backward passes: see ``training_flops`` (PaLM: Chowdhery et al. 2022, arXiv:2204.02311,
appendix B, has the case in which everything trains: three times the forward pass).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from medvlm.model.batch import PackedBatch
from medvlm.model.config import MedVLMConfig, VisionConfig
from medvlm.model.projector_resampling import reach
from medvlm.model.vision_attention import plan_attention
from medvlm.model.vision_positions import PLACE_FEATURES

PARTS = ("vision", "projector", "text", "head")
"""In the order of the forward pass."""


@dataclass(frozen=True, kw_only=True)
class Flops:
    """FLOPs of one part.

    Attributes:
        linear: of maps by weights; their backward pass is once the same for inputs, and once for weights.
        attention: of products of activations; their backward pass is always twice the same.
    """

    linear: float = 0.0
    attention: float = 0.0

    @property
    def total(self) -> float:
        return self.linear + self.attention

    def __add__(self, other: Flops) -> Flops:
        return Flops(linear=self.linear + other.linear, attention=self.attention + other.attention)


@dataclass(frozen=True, kw_only=True)
class ModelFlops:
    """What one token, pair or patch costs in a forward pass of a model.

    Attributes:
        token: of the decoder's layers, per token.
        causal_pair: of the decoder's attention, per query and key that it sees.
        logits: per position whose logits are made.
        patch, prefix: of the encoder, per patch, and per prefix token, which is not embedded.
        pair: of the encoder's attention, per query and key.
        visual_token: of the projector, per visual token.
        visual: of a projector with slots, per visual.
        visual_patch, visual_pair: of a projector with queries, per patch, and per query and key.
        patches_per_row: patches in one row of ``PackedBatch.patches`` (a whole tile for families that cut tiles).
        config: of the model.
    """

    token: float
    causal_pair: float
    logits: float
    patch: float
    prefix: float
    pair: float
    visual_token: float
    visual: float = 0.0
    visual_patch: float = 0.0
    visual_pair: float = 0.0
    patches_per_row: int = 1
    config: Any = None

    def forward(
        self,
        *,
        lengths: Sequence[int],
        grids: Sequence[Sequence[int]] = (),
        visual_tokens: int = 0,
        logits: int = 0,
        axis_kinds: Sequence[int] = (),
    ) -> dict[str, Flops]:
        """FLOPs of each of PARTS.

        Args:
            lengths: tokens of each sample.
            grids: patches along (z, y, x) of each visual; axis_kinds: what they are, as in PackedBatch.
            visual_tokens: that the projector makes.
            logits: positions whose logits are made.
        """
        patches = self.patches_per_row * sum(math.prod(grid) for grid in grids)
        prefix, pairs = self._encoder_pairs(grids)
        # A projector with queries maps them all and drops what is not kept; the others map what is kept.
        queries, keys, crossed = visual_tokens, 0, 0
        if self.visual_pair and len(grids):
            who = reach(self.config.projector_config, torch.tensor(grids), torch.tensor(axis_kinds))
            own = self.config.projector_config.kind == "perceiver"  # its queries are keys as well
            queries, keys = sum(who.queries), sum(who.keys)
            crossed = sum(q * (k + q * own) for q, k in zip(who.queries, who.keys, strict=True))
        return {
            "vision": Flops(linear=self.patch * patches + self.prefix * prefix, attention=self.pair * pairs),
            "projector": Flops(
                linear=self.visual_token * queries + self.visual * len(grids) + self.visual_patch * keys,
                attention=self.visual_pair * crossed,
            ),
            "text": Flops(
                linear=self.token * sum(lengths),
                attention=self.causal_pair * sum(length * (length + 1) / 2 for length in lengths),
            ),
            "head": Flops(linear=self.logits * logits),
        }

    def of_pack(self, pack: PackedBatch, logits: int | None = None) -> dict[str, Flops]:
        """FLOPs of each of PARTS for ``pack``; ``logits``: positions whose logits are made, by default the supervised.

        A pack that brings the encoder's features costs no encoder.
        """
        parts = self.forward(
            lengths=pack.cu_seqlens.diff().tolist(),
            grids=pack.grids.tolist(),
            visual_tokens=int(pack.kept.sum()),
            logits=pack.supervised if logits is None else logits,
            axis_kinds=pack.axis_kinds.tolist(),
        )
        return parts if pack.features is None else parts | {"vision": Flops()}

    def _encoder_pairs(self, grids: Sequence[Sequence[int]]) -> tuple[int, float]:
        """Prefix tokens of all visuals, and the pairs of the encoder's attention."""
        if not self.pair:
            return 0, 0
        vision = getattr(self.config, "vision_config", None)
        if isinstance(vision, VisionConfig):
            rows = [(int(z), int(y), int(x)) for z, y, x in grids]
            plan = plan_attention(rows, vision.prefix_tokens, vision.depth_window)
            return vision.prefix_tokens * sum(z for z, _, _ in rows), plan.pairs
        # Libraries attend inside of a picture: a slice, a frame or a tile (windows inside of it are not looked at).
        return 0, sum(z * (self.patches_per_row * y * x) ** 2 for z, y, x in grids)


def training_flops(forward: Mapping[str, Flops], trained: Collection[str], adapted: Collection[str] = ()) -> float:
    """FLOPs of the forward and the backward pass together, recomputation not counted.

    A part that trains, or that lies behind one, is passed backward: once more its linear maps, twice more its
    attention. Weights that train cost their linear maps once more. What lies before all that trains is free.

    Args:
        forward: of ``ModelFlops.forward``.
        trained: components ("vision", "projector", "text") that train in full; the head belongs to "text".
        adapted: components with adapters, whose own small maps are not counted.
    """
    total, reached = 0.0, False
    for part in PARTS:
        component = "text" if part == "head" else part
        reached = reached or component in trained or component in adapted
        flops = forward[part]
        total += flops.total
        if reached:
            total += flops.linear * (1 + (component in trained)) + 2 * flops.attention
    return total


def model_flops(model: nn.Module) -> ModelFlops:
    """Costs of ``model``, which may be an empty one of ``loading.empty_model``, or one that LoRA or ZeRO changed."""
    config: Any = model.config
    text = config.get_text_config()
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    groups: dict[str, list[nn.Module]] = {"vision": [], "projector": [], "text": []}
    for name, module in model.named_modules():
        component = model.component_of(name) if name else ""  # type: ignore[operator]
        if component in groups and module is not head and ".lora_" not in name:
            groups[component].append(module)
    weights = {name: _weights(modules, text) for name, modules in groups.items()}
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    known = {
        "token": 2.0 * weights["text"],
        "causal_pair": 4.0 * text.num_hidden_layers * text.num_attention_heads * head_dim,
        "logits": 2.0 * head.in_features * head.out_features,
        "config": config,
    }
    vision = config.vision_config
    own = isinstance(config, MedVLMConfig)
    if own and not isinstance(vision, VisionConfig):
        patch, pair = _slices_per_patch(vision), 0.0
    else:
        layers, hidden = _first(vision, "num_hidden_layers", "depth"), _first(vision, "hidden_size", "embed_dim")
        patch, pair = 2.0 * weights["vision"], 4.0 * layers * hidden
    if own:
        known |= _projector(groups["projector"], config, weights["projector"])
    else:
        known["visual_token"] = 2.0 * weights["projector"]
        if getattr(model.family, "fixed_size", False):  # type: ignore[union-attr]
            side, cell = (_side(value) for value in (vision.image_size, vision.patch_size))
            known["patches_per_row"] = (side // cell) ** 2
    embedding = 0
    if own and isinstance(vision, VisionConfig):
        embedding = vision.hidden_size * (vision.patch_dim + PLACE_FEATURES * vision.place_features)
    return ModelFlops(patch=patch, prefix=patch - 2.0 * embedding, pair=pair, **known)


def _weights(modules: Iterable[nn.Module], text: Any) -> float:
    """Numbers in the linear maps (and convolutions that cut patches) that one token passes."""
    total = 0.0
    for module in modules:
        if hasattr(module, "in_features") and not hasattr(module, "base_layer"):  # also of 4 bits, whatever ZeRO did
            total += int(module.in_features) * int(module.out_features)  # type: ignore[arg-type]
        elif isinstance(module, nn.Conv2d | nn.Conv3d):
            total += math.prod(module.kernel_size) * module.in_channels * module.out_channels / module.groups
        elif (experts := getattr(module, "num_experts", None)) and isinstance(experts, int):
            # transformers keeps a layer's experts in one tensor (experts, rows, cols), its router in (experts, cols).
            chosen = _first(text, "num_experts_per_tok", "top_k_experts")
            for parameter in module.parameters(recurse=False):
                if len(parameter) == experts and parameter.ndim in (2, 3):
                    total += parameter.numel() * (chosen / experts if parameter.ndim == 3 else 1)
    return total


def _projector(modules: list[nn.Module], config: MedVLMConfig, weights: float) -> dict[str, float]:
    """Costs of our projectors, by what each maps: tokens, patches, queries."""
    projector = config.projector_config
    width, hidden = config.vision_config.hidden_size, config.text_config.hidden_size
    if projector.kind == "soft_moe":
        # Router, dispatch and combination reach each token; experts see their slots only, as many of each visual.
        assert projector.num_experts is not None and projector.slots_per_expert is not None
        merged, slots = math.prod(projector.merge) * width, projector.num_experts * projector.slots_per_expert
        expert = merged * projector.hidden_size + projector.hidden_size * hidden
        return {
            "visual_token": 2.0 * (2 * merged * slots + slots * hidden + merged * hidden),
            "visual": 2.0 * slots * expert,
        }
    if projector.kind not in ("perceiver", "attention_pooling"):
        return {"visual_token": 2.0 * weights}
    layers = projector.num_hidden_layers or 1
    of_patches = layers * 2 * width * width  # the maps k and v
    as_keys = of_patches if projector.kind == "perceiver" else 0
    return {
        "visual_token": 2.0 * (weights - of_patches + as_keys),
        "visual_patch": 2.0 * of_patches,
        "visual_pair": 4.0 * layers * width,
    }


def _slices_per_patch(vision: Any) -> float:
    """A convolutional encoder, counted on one slice of 8 x 8 patches without weights."""
    from medvlm.model.slice_backbone import SliceBackbone  # it needs timm, which most models do without

    side = 8 * vision.patch_size[1]
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        SliceBackbone(vision).eval()._feature_map(torch.zeros(1, 3, side, side))
    return counter.get_total_flops() / 64


def _first(config: Any, *names: str) -> float:
    """The first of these fields that ``config`` has; families name them differently."""
    for name in names:
        if getattr(config, name, None) is not None:
            return getattr(config, name)
    raise ValueError(f"the config {type(config).__name__} has none of {', '.join(names)}, which FLOPs are counted from")


def _side(size: Any) -> int:
    return int(size[0]) if isinstance(size, list | tuple) else int(size)
