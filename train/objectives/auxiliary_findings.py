"""Multi-label findings, and their progression since the prior study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from medvlm.data_recipes.sample import Sample
from medvlm.model.batch import PackedBatch
from medvlm.model.head_findings import CHANGES
from medvlm.model.head_pooling import EncodedVisuals
from medvlm.train.objectives.auxiliary_labels import change_labels, current, finding_labels


class Findings:
    """Binary cross-entropy of each known finding of each sample that shows something; one item is one label.

    Args:
        findings: names of the outputs of the head.
        positive_weights: name -> how much more a present one counts (RECAP weighs all by 1 + alpha).
    """

    names: tuple[str, ...] = ("findings",)

    def __init__(self, findings: Sequence[str], positive_weights: Mapping[str, float]) -> None:
        self.findings = tuple(findings)
        self.weights = torch.tensor([positive_weights.get(name, 1.0) for name in findings])

    def _known(self, sample: Sample) -> dict[int, float]:
        labels = finding_labels(sample) if sample.visuals() else {}
        return {n: float(labels[name]) for n, name in enumerate(self.findings) if name in labels}

    def counts(self, batch: PackedBatch) -> dict[str, float]:
        return {"findings": float(sum(len(self._known(row)) for row in batch.rows))}

    def __call__(self, model: Any, batch: PackedBatch, visuals: EncodedVisuals) -> dict[str, Tensor]:
        known = {item: self._known(row) for item, row in enumerate(batch.rows)}
        known = {item: labels for item, labels in known.items() if labels}
        shown = [current(batch.rows[item], visuals.shown[item]) for item in known]
        logits = model.heads["findings"](visuals.features, visuals.patches, shown)
        where = [(row, column) for row, labels in enumerate(known.values()) for column in labels]
        rows, columns = torch.tensor(where, dtype=torch.int64, device=logits.device).view(-1, 2).unbind(dim=1)
        targets = logits.new_tensor([value for labels in known.values() for value in labels.values()])
        losses = F.binary_cross_entropy_with_logits(
            logits[rows, columns], targets, pos_weight=self.weights.to(logits.device)[columns], reduction="sum"
        )
        return {"findings": losses}


class Progression:
    """Cross-entropy over better, same and worse of each known change since the prior; one item is one label."""

    names: tuple[str, ...] = ("progression",)

    def __init__(self, findings: Sequence[str]) -> None:
        self.findings = tuple(findings)

    def _known(self, sample: Sample) -> dict[int, int]:
        labels = change_labels(sample)
        return {n: CHANGES.index(labels[name]) for n, name in enumerate(self.findings) if name in labels}

    def counts(self, batch: PackedBatch) -> dict[str, float]:
        return {"progression": float(sum(len(self._known(row)) for row in batch.rows))}

    def __call__(self, model: Any, batch: PackedBatch, visuals: EncodedVisuals) -> dict[str, Tensor]:
        known = {item: self._known(row) for item, row in enumerate(batch.rows)}
        known = {item: labels for item, labels in known.items() if labels}
        pairs = [(visuals.shown[item][0], visuals.shown[item][-1]) for item in known]
        logits = model.heads["progression"](visuals.features, visuals.patches, pairs)  # (B, findings, 3)
        where = [(row, column) for row, labels in enumerate(known.values()) for column in labels]
        rows, columns = torch.tensor(where, dtype=torch.int64, device=logits.device).view(-1, 2).unbind(dim=1)
        targets = [value for labels in known.values() for value in labels.values()]
        chosen = torch.tensor(targets, dtype=torch.int64, device=logits.device)
        return {"progression": F.cross_entropy(logits[rows, columns], chosen, reduction="sum")}
