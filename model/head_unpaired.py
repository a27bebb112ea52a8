"""The head that images and reports of different patients share: one classifier of findings on top of both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medvlm.model.config import MedVLMConfig
from medvlm.model.head_pooling import Pooling, VisualPool, mean_of_samples


class UnpairedHead(nn.Module):
    """Two linear maps into one space, and one classifier there (after MedRAT: Hirsch et al. 2024, arXiv:2407.03919).

    As there: images and reports that do not belong together are brought into one space by a task that both have to
    solve, the classification of findings by one classifier.

    Not as there: MedRAT also shares a transformer layer and what pools its outputs, and its classifier has a hidden
    layer; here only a norm and a linear layer are shared, so that encoder and decoder must do the rest. Its contrastive
    loss by labels is not here (it needs the pool of a step), nor its memory matrix, in which both modalities look up.
    Its auto-encoding of reports is left to the objective of the stage.

    Args:
        findings: names of the outputs; they stay in the config of the checkpoint.
        size: of the shared space.
        pooling: how the patches of a visual become one vector; the visuals of a sample are averaged.
    """

    def __init__(
        self, config: MedVLMConfig, *, findings: list[str], size: int = 256, pooling: Pooling = "mean"
    ) -> None:
        super().__init__()
        vision, text = config.vision_config.hidden_size, config.text_config.hidden_size
        self.pool = VisualPool(vision, pooling)
        self.visual, self.text = nn.Linear(vision, size), nn.Linear(text, size)
        self.norm = nn.LayerNorm(size)
        self.out = nn.Linear(size, len(findings))

    def forward(
        self, features: Tensor, text: Tensor, patches: list[int], shown: list[list[int]]
    ) -> tuple[Tensor, Tensor]:
        """Logits of B samples with visuals (B, findings), and of N texts (N, findings), float32.

        Args:
            features: (P, vision_hidden) of V visuals, end to end.
            text: (N, text_hidden).
            patches: of each visual.
            shown: the visuals of each of the B samples.
        """
        pooled = mean_of_samples(self.pool(features, patches), shown)
        visual, text = self.visual(pooled.to(self.visual.weight.dtype)), self.text(text.to(self.text.weight.dtype))
        # One call for both: they share all that follows.
        logits = self.out(self.norm(torch.cat([visual, text]))).float()
        return logits[: len(shown)], logits[len(shown) :]
