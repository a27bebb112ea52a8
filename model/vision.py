"""VisionEncoder: one pass over the packed patches of all images, volumes and videos of a step.

A 2D image is a volume of one slice and a video a volume whose first axis is time. Attention stays inside a visual,
and inside a window of slabs where the config sets one. Rotary positions run along z, y and x in millimetres where the
spacing is known (RoPE: Su et al. 2021, arXiv:2104.09864; its axial form: Qwen2-VL, arXiv:2409.12191; millimetres are
ours), so that a lesion keeps its size at any resolution; Fourier features of the relative place in the field of view
tell where a patch lies. Further settings of VisionConfig make room for the weights of pretrained 2D encoders.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN

from medvlm.model.config import VisionConfig
from medvlm.model.vision_attention import Attend, attention_kernel, plan_attention
from medvlm.model.vision_positions import PLACE_FEATURES, Places, rotary_angles, rotate, slab_order, table_positions


class FeedForward(nn.Module):
    """Two linear layers, or three of which one is a gate, around a non-linearity."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.up, self.down = nn.Linear(hidden, inner), nn.Linear(inner, hidden)
        self.gate = nn.Linear(hidden, inner) if config.mlp == "gated" else None
        self.norm = nn.LayerNorm(inner, eps=config.layer_norm_eps) if config.mlp_norm else None
        self.act = ACT2FN[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """(S, hidden) -> (S, hidden)."""
        inner = self.up(x)
        inner = self.act(inner) if self.gate is None else self.act(self.gate(x)) * inner
        return self.down(inner if self.norm is None else self.norm(inner))


class EncoderLayer(nn.Module):
    """Pre-norm transformer block (ViT: Dosovitskiy et al. 2020, arXiv:2010.11929)."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.layer_norm_eps
        self.heads = config.num_attention_heads
        self.norm1 = nn.LayerNorm(hidden, eps=eps)
        self.attention = nn.ModuleDict({"qkv": nn.Linear(hidden, 3 * hidden), "out": nn.Linear(hidden, hidden)})
        if config.attention_norm:
            self.attention["norm"] = nn.LayerNorm(hidden, eps=eps)
        self.norm2 = nn.LayerNorm(hidden, eps=eps)
        self.mlp = FeedForward(config)
        if config.layer_scale:
            self.scale1 = nn.Parameter(torch.ones(hidden))
            self.scale2 = nn.Parameter(torch.ones(hidden))
        self.layer_scale = config.layer_scale

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None, attend: Attend) -> Tensor:
        """x: (S, hidden); rotary: cos and sin, each (1, S, head_dim / 2); attend: of ``attention_kernel``."""
        mixed = self._attention(self.norm1(x), rotary, attend)
        x = x + (mixed * self.scale1 if self.layer_scale else mixed)
        changed = self.mlp(self.norm2(x))
        return x + (changed * self.scale2 if self.layer_scale else changed)

    def _attention(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None, attend: Attend) -> Tensor:
        total, hidden = x.shape
        qkv = self.attention["qkv"](x).view(total, 3, self.heads, hidden // self.heads)
        q, k, v = qkv.permute(1, 2, 0, 3)  # each (heads, S, head_dim)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        mixed = attend(q, k, v).transpose(0, 1).reshape(total, hidden)
        if "norm" in self.attention:
            mixed = self.attention["norm"](mixed)
        return self.attention["out"](mixed)


class VisionEncoder(PreTrainedModel):
    """Patches (P, patch_dim) of V visuals -> features (P, hidden)."""

    config: VisionConfig
    config_class = VisionConfig
    main_input_name = "patches"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    supports_gradient_checkpointing = True
    _no_split_modules = ["EncoderLayer"]  # noqa: RUF012

    def __init__(self, config: VisionConfig) -> None:
        super().__init__(config)
        self.embed = nn.Linear(config.patch_dim, config.hidden_size)
        if config.place_features:
            self.place = nn.Linear(PLACE_FEATURES, config.hidden_size)
        if config.table_size is not None:
            self.table = nn.Parameter(torch.zeros(config.table_size[0] * config.table_size[1], config.hidden_size))
        if config.prefix_tokens:
            self.prefix = nn.Parameter(torch.zeros(config.prefix_tokens, config.hidden_size))
        if config.embedding_norm:
            self.embedding_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList([EncoderLayer(config) for _ in range(config.num_hidden_layers)])
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.final_norm else nn.Identity()
        self.gradient_checkpointing = False
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, VisionEncoder):
            for name in ("table", "prefix"):
                if hasattr(module, name):
                    init.normal_(getattr(module, name), std=self.config.initializer_range)
        elif isinstance(module, EncoderLayer) and module.layer_scale:
            init.ones_(module.scale1)
            init.ones_(module.scale2)

    def forward(self, patches: Tensor, grids: Tensor, spacing: Tensor, axis_kinds: Tensor, merge: list[int]) -> Tensor:
        """Encode every visual on its own.

        Args:
            patches: (P, patch_dim), in the order of ``patches.cut``.
            grids: (V, 3); spacing: (V, 3) with NaN when unknown; axis_kinds: (V,).
            merge: of the projector, which decides the order of the patches.

        Returns:
            (P, hidden), in the order of ``patches``; prefix tokens are dropped.

        Raises:
            ValueError: an attention implementation that the encoder does not have.
        """
        config = self.config
        places = Places(grids, spacing, axis_kinds, config, merge)
        order = slab_order(places, merge, config)
        rotary = rotary_angles(places, config)
        x = self._embed(patches, places)
        if order is not None:
            rotary = order.angles(rotary)
            if config.prefix_tokens:
                x = torch.cat([self.prefix.to(x.dtype).repeat(order.slabs, 1), x])
            x = x[order.gather]
        if config.embedding_norm:
            x = self.embedding_norm(x)
        plan = plan_attention(places.rows, config.prefix_tokens, config.depth_window)
        attend = attention_kernel(config._attn_implementation or "sdpa", plan, x.device)
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                x = torch.utils.checkpoint.checkpoint(layer, x, rotary, attend, use_reentrant=False)
            else:
                x = layer(x, rotary, attend)
        return self.norm(x if order is None else x[order.scatter])

    def _embed(self, patches: Tensor, places: Places) -> Tensor:
        """Patches and where they lie: (P, hidden)."""
        dtype = self.embed.weight.dtype
        x = self.embed(patches.to(dtype))
        if self.config.place_features:
            x = x + self.place(places.features.to(dtype))
        if self.config.table_size is not None:
            x = x + table_positions(self.table, places, self.config).to(dtype)
        return x


def build_encoder(config: PretrainedConfig) -> PreTrainedModel:
    """The encoder, with random weights, that the class of ``config`` asks for: VisionEncoder or SliceBackbone.

    Raises:
        ValueError: a config of another class.
    """
    if isinstance(config, VisionConfig):
        return VisionEncoder(config)
    # Imported here because most models run without it.
    from medvlm.model.slice_backbone import SliceBackbone, SliceBackboneConfig

    if isinstance(config, SliceBackboneConfig):
        return SliceBackbone(config)
    raise ValueError(f"vision_config is a {type(config).__name__}, expected VisionConfig or SliceBackboneConfig")
