"""Heads that name findings: present or absent in a study, and better, same or worse since the prior one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medvlm.model.config import MedVLMConfig
from medvlm.model.head_pooling import Pooling, VisualPool, mean_of_samples

CHANGES = ("better", "same", "worse")
"""What the progression head tells apart, in the order of its outputs."""


class FindingsHead(nn.Module):
    """One logit a finding, from the pooled features of a sample's visuals (multi-label classification of tags: Jing et
    al. 2018, arXiv:1711.08195, section 3.2; observation head of RECAP: Hou et al. 2023, arXiv:2310.13864).

    Args:
        findings: names of the outputs; they stay in the config of the checkpoint.
        pooling: how the patches of a visual become one vector; the visuals of a sample are averaged.
    """

    def __init__(self, config: MedVLMConfig, *, findings: list[str], pooling: Pooling = "mean") -> None:
        super().__init__()
        width = config.vision_config.hidden_size
        self.pool = VisualPool(width, pooling)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, len(findings))

    def forward(self, features: Tensor, patches: list[int], shown: list[list[int]]) -> Tensor:
        """Logits (B, findings) in float32.

        Args:
            features: (P, vision_hidden) of V visuals, end to end.
            patches: of each visual.
            shown: the visuals of each of B samples.
        """
        pooled = mean_of_samples(self.pool(features, patches), shown)
        return self.out(self.norm(pooled.to(self.norm.weight.dtype))).float()


class ProgressionHead(nn.Module):
    """Better, same or worse for each finding, from the pooled features of prior and current (RECAP: arXiv:2310.13864,
    section 3.2: a head on both, laid side by side).

    RECAP asks for the progression of a study as a whole and stops the gradient before the encoder; here it is asked
    finding by finding, and the encoder learns from it.

    Args:
        findings, pooling: as of FindingsHead.
    """

    def __init__(self, config: MedVLMConfig, *, findings: list[str], pooling: Pooling = "mean") -> None:
        super().__init__()
        width = config.vision_config.hidden_size
        self.pool = VisualPool(width, pooling)
        self.findings = len(findings)
        self.norm = nn.LayerNorm(2 * width)
        self.mlp = nn.ModuleDict({"up": nn.Linear(2 * width, width), "down": nn.Linear(width, 3 * len(findings))})

    def forward(self, features: Tensor, patches: list[int], pairs: list[tuple[int, int]]) -> Tensor:
        """Logits (B, findings, 3) in float32, in the order of CHANGES.

        Args:
            pairs: prior and current of each of B samples, as numbers of visuals.
        """
        pooled = self.pool(features, patches)
        which = torch.tensor(pairs, dtype=torch.int64, device=pooled.device).view(-1, 2)
        both = torch.cat([pooled[which[:, 0]], pooled[which[:, 1]]], dim=1).to(self.norm.weight.dtype)
        hidden = nn.functional.gelu(self.mlp["up"](self.norm(both)))
        return self.mlp["down"](hidden).float().view(len(which), self.findings, len(CHANGES))
