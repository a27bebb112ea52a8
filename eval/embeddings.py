"""Samples -> where their visuals and texts lie in the space that a contrastive stage has learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medvlm.data_recipes.packing import collate
from medvlm.data_recipes.rendering import Renderer
from medvlm.data_recipes.sample import Sample
from medvlm.model.head_contrastive import embed_pairs, pack_texts
from medvlm.model.loading import Model, Processor


@dataclass(frozen=True, kw_only=True)
class PairEmbeddings:
    """N samples; a row of ``visual`` times a row of ``text`` is their cosine.

    Attributes:
        visual, text: (N, size) float32, of length 1.
        texts: what was read.
    """

    visual: np.ndarray
    text: np.ndarray
    texts: tuple[str, ...]

    def similarity(self) -> np.ndarray:
        """(N visuals, N texts) cosines; transpose it to search visuals by text."""
        return self.visual @ self.text.T

    def right(self) -> np.ndarray:
        """(N, N) which text is right for which visual: its own, and those that say the same."""
        same = np.array([" ".join(text.split()) for text in self.texts])
        return same[:, None] == same[None, :]


@torch.inference_mode()
def embed_samples(
    model: Model, processor: Processor, samples: Sequence[Sample], root: Path, batch_size: int = 8
) -> PairEmbeddings:
    """Embed each sample's visuals, and what its assistant says (of a question: its reference answer).

    Args:
        root: folder that the paths of visuals start from.

    Raises:
        ValueError: the model has no contrastive head, or a sample shows or says nothing.
        BadSample: a visual cannot be read.
    """
    renderer = Renderer(processor, root)
    for sample in samples:
        if not sample.visuals() or not sample.said():
            raise ValueError(f"sample {sample.sample_id!r} has no visual or no text to compare; leave it out")
    model.eval()
    parts = []
    for start in range(0, len(samples), batch_size):
        some = samples[start : start + batch_size]
        pack = collate([(sample.sample_id, renderer.sides(sample)) for sample in some]).to(model.device)
        texts = pack_texts(processor.tokenizer, [sample.said() for sample in some]).to(model.device)
        parts.append(embed_pairs(model, pack, list(range(len(some))), texts))
    return PairEmbeddings(
        visual=torch.cat([part.visual for part in parts]).cpu().numpy(),
        text=torch.cat([part.text for part in parts]).cpu().numpy(),
        texts=tuple(sample.said() for sample in samples),
    )
