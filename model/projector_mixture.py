"""SoftMixtureOfExperts: the projector whose MLP is a soft mixture (Puigcerver et al. 2023, arXiv:2308.00951)."""

from __future__ import annotations

import math
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN

from medvlm.model.config import ProjectorConfig


class SlotRouter(nn.Module):
    """How well each token fits each slot: cosine times a learned scale (section 2.3 of the paper)."""

    def __init__(self, width: int, slots: int) -> None:
        super().__init__()
        self.slots = nn.Parameter(torch.empty(slots, width))
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, width) -> (N, slots) float32."""
        directions = F.normalize(self.slots.float(), dim=-1) * self.scale.float()
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(F.normalize(x.float(), dim=-1), directions)


class Expert(nn.Module):
    """Two-layer MLP."""

    def __init__(self, width: int, hidden: int, text_width: int) -> None:
        super().__init__()
        self.mlp = nn.ModuleDict({"up": nn.Linear(width, hidden), "down": nn.Linear(hidden, text_width)})
        self.act = ACT2FN["gelu_pytorch_tanh"]

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., text_width)."""
        return self.mlp["down"](self.act(self.mlp["up"](x)))


def dispatch_weights(logits: Tensor) -> Tensor:
    """Shares of the tokens in each slot: (..., tokens, slots) -> the same; each slot's sum to 1 over the tokens."""
    return logits.softmax(dim=-2)


def combine_weights(logits: Tensor) -> Tensor:
    """Shares of the slots in each token: (..., tokens, slots) -> the same; each token's sum to 1 over the slots."""
    return logits.softmax(dim=-1)


class SoftMixtureOfExperts(PreTrainedModel):
    """Merged neighbours go through a soft mixture of expert MLPs; one token each, as of the plain MLP.

    Slots are filled with weighted means of the tokens of ONE visual, so that a visual's tokens do not depend on its
    neighbours in the pack. The paper's layer stands on a residual stream; since the widths differ here, a linear map
    ``skip`` is that stream: without it every token would be a mixture of the same few slots, and places would blur.
    """

    config: ProjectorConfig
    config_class = ProjectorConfig
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def __init__(self, config: ProjectorConfig, vision_width: int, text_width: int) -> None:
        super().__init__(config)
        assert config.num_experts is not None and config.slots_per_expert is not None
        self.merged = math.prod(config.merge)
        width = self.merged * vision_width
        self.norm = nn.LayerNorm(width)
        self.router = SlotRouter(width, config.num_experts * config.slots_per_expert)
        self.experts = nn.ModuleList([Expert(width, config.hidden_size, text_width) for _ in range(config.num_experts)])
        self.skip = nn.Linear(width, text_width)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, SlotRouter):
            init.normal_(module.slots)
            init.ones_(module.scale)

    def forward(self, features: Tensor, grids: Tensor, kept: Tensor, axis_kinds: Tensor) -> Tensor:
        """Visual tokens of all visuals: (kept.sum(), text_width); arguments as in Projector.forward.

        Tokens that are not kept fill no slot either.
        """
        x = self.norm(features.reshape(features.shape[0] // self.merged, -1)[kept])
        made = [math.prod(row) // self.merged for row in grids.tolist()]
        lengths = [int(part.sum()) for part in kept.split(made)]
        logits = self.router(x)
        slots = _of_each_visual(x, logits, lengths)  # (V, slots, width)
        shares = slots.chunk(len(self.experts), dim=1)
        answers = torch.cat([expert(share) for expert, share in zip(self.experts, shares, strict=True)], dim=1)
        weights = combine_weights(logits).to(answers.dtype).split(lengths)
        mixed = torch.cat([weight @ answer for weight, answer in zip(weights, answers, strict=True)])
        return self.skip(x) + mixed


def _of_each_visual(x: Tensor, logits: Tensor, lengths: list[int]) -> Tensor:
    """Slots of each visual, filled from its own tokens: (V, slots, width)."""
    out, start = [], 0
    for length, same in groupby(lengths):
        count = len(list(same))
        stop = start + count * length
        weights = dispatch_weights(logits[start:stop].reshape(count, length, -1)).to(x.dtype)
        out.append(weights.transpose(1, 2) @ x[start:stop].reshape(count, length, -1))
        start = stop
    return torch.cat(out)
