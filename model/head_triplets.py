"""The head of MedKLIP: each entity looks at the patches and says whether it is there, and where."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medvlm.model.config import MedVLMConfig, ProjectorConfig
from medvlm.model.head_pooling import mean_of_samples
from medvlm.model.projector_resampling import CrossAttention, Reach


class _Layer(nn.Module):
    """Queries look at the patches of their visual, then an MLP."""

    def __init__(self, size: int) -> None:
        super().__init__()
        heads = 4 if size % 4 == 0 else 1
        config = ProjectorConfig(kind="attention_pooling", hidden_size=size, num_attention_heads=heads)
        self.norm_queries, self.norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.attention = CrossAttention(size, config)
        self.mlp = nn.ModuleDict({"up": nn.Linear(size, 4 * size), "down": nn.Linear(4 * size, size)})

    def forward(self, queries: Tensor, keys: Tensor, who: Reach) -> Tensor:
        queries = queries + self.attention(self.norm_queries(queries), keys, who)
        return queries + self.mlp["down"](F.gelu(self.mlp["up"](self.norm(queries))))


class TripletsHead(nn.Module):
    """Entity queries over the patches of each visual (MedKLIP: Wu et al. 2023, arXiv:2301.02228, section 3.3).

    As there: queries attend to the features of the image, one output says whether the entity is present, and its
    position is chosen by inner products with embeddings of positions. Not as there: queries and positions are learned
    tables and not embeddings of their descriptions by a frozen ClinicalBERT, so that an entity without training labels
    has no query; queries do not attend to each other; all positions are candidates, where MedKLIP draws seven wrong
    ones.

    Args:
        entities, positions: names of the queries and of the positions; they stay in the config of the checkpoint.
        size: width of queries and positions.
        layers: how often the queries look at the patches.
    """

    def __init__(
        self, config: MedVLMConfig, *, entities: list[str], positions: list[str], size: int = 256, layers: int = 4
    ) -> None:
        super().__init__()
        self.patches = nn.Linear(config.vision_config.hidden_size, size)
        self.norm_patches, self.norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.entities, self.positions = nn.Embedding(len(entities), size), nn.Embedding(len(positions), size)
        for table in (self.entities, self.positions):
            nn.init.normal_(table.weight, std=size**-0.5)
        self.layers = nn.ModuleList([_Layer(size) for _ in range(layers)])
        self.present, self.place = nn.Linear(size, 1), nn.Linear(size, size)

    def forward(self, features: Tensor, patches: list[int], shown: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Logits of presence (B, entities) and of positions (B, entities, positions), float32.

        Arguments as of FindingsHead; what the queries found in the visuals of a sample is averaged.
        """
        number = self.entities.num_embeddings
        dtype = self.patches.weight.dtype
        keys = self.norm_patches(self.patches(features.to(dtype)))
        queries = self.entities(torch.arange(number, device=features.device).repeat(len(patches)))
        who = Reach(queries=[number] * len(patches), keys=patches)
        for layer in self.layers:
            queries = layer(queries, keys, who)
        found = self.norm(queries).view(len(patches), -1)  # (V, entities * size)
        found = mean_of_samples(found.float(), shown).view(len(shown), number, self.norm.normalized_shape[0]).to(dtype)
        places = self.positions(torch.arange(self.positions.num_embeddings, device=features.device))
        return self.present(found).squeeze(2).float(), (self.place(found) @ places.T).float()
