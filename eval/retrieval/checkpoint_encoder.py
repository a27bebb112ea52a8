"""The contrastive head of a medvlm checkpoint: pictures, scans and texts in one space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from medvlm.data_recipes.sample import Sample, Turn, VisualRef
from medvlm.eval.embeddings import embed_samples
from medvlm.eval.retrieval.corpus import Passage
from medvlm.eval.retrieval.encoders import Role, weights_of
from medvlm.model import load_checkpoint
from medvlm.model.head_contrastive import pack_texts, text_states


class CheckpointEncoder:
    """Both sides of a contrastive head.

    A passage with text and pictures is where the mean of its two unit vectors points (late fusion, as CLIP-SF of
    UniIR); several pictures are averaged by the head.

    Raises:
        ValueError: the checkpoint has no contrastive head.
    """

    reads_images = True

    def __init__(self, path: str, *, batch: int = 8, device: str | None = None) -> None:
        model, self.processor = load_checkpoint(path)
        self.model: Any = model
        if "contrastive" not in getattr(self.model, "heads", {}):
            raise ValueError(f"{path} has no contrastive head: train a stage with objective: contrastive first")
        self.model.eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.name, self.batch = path, batch
        self.settings: dict[str, Any] = {"fusion": "mean of unit vectors", "weights": weights_of(path)}

    def pairs(self, samples: Sequence[Sample], root: Path) -> np.ndarray:
        """(N, 2 * size): visuals, then texts, of samples."""
        held = embed_samples(self.model, self.processor, samples, root, batch_size=self.batch)
        return np.concatenate([held.visual, held.text], axis=1)

    def embed(self, passages: Sequence[Passage], role: Role) -> np.ndarray:
        found = [np.zeros(0, np.float32)] * len(passages)
        shown = [place for place, passage in enumerate(passages) if passage.images]
        if shown:
            samples = [_sample(passages[place]) for place in shown]
            visuals = embed_samples(self.model, self.processor, samples, Path("/"), batch_size=self.batch).visual
            found = _put(found, shown, visuals)
        written = [place for place, passage in enumerate(passages) if passage.text]
        texts = self._texts([passages[place].text for place in written])
        for place, text in zip(written, texts, strict=True):
            mean = text if not len(found[place]) else found[place] + text
            found[place] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return np.stack(found)

    def cut(self, passages: Sequence[Passage], role: Role) -> int:
        return 0  # the decoder reads the whole text

    @torch.inference_mode()
    def _texts(self, texts: Sequence[str]) -> np.ndarray:
        head = self.model.heads["contrastive"]
        packed = pack_texts(self.processor.tokenizer, texts).to(self.model.device)
        states = text_states(self.model, packed, head.reads)[: len(texts)]
        return F.normalize(head.text(states.to(head.text.weight.dtype)).float(), dim=-1).cpu().numpy()


def _put(found: list[np.ndarray], places: Sequence[int], vectors: np.ndarray) -> list[np.ndarray]:
    held = list(found)
    for place, vector in zip(places, vectors, strict=True):
        held[place] = vector
    return held


def _sample(passage: Passage) -> Sample:
    refs = tuple(VisualRef(kind="image", path=str(path.resolve())) for path in passage.images)
    turns = (Turn(role="user", content=refs), Turn(role="assistant", content=("-",)))  # its text is not looked at
    return Sample(
        sample_id=passage.name, patient_id=passage.name, study_id=passage.name, source="retrieval", licence="unknown",
        split="test", turns=turns,
    )  # fmt: skip
