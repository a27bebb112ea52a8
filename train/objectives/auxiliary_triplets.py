"""Entities and where they are: MedKLIP's supervision by triplets taken from reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from medvlm.data_recipes.sample import Sample
from medvlm.model.batch import PackedBatch
from medvlm.model.head_pooling import EncodedVisuals
from medvlm.train.objectives.auxiliary_labels import current, triplet_labels


class Triplets:
    """Whether each known entity is present, and for the present ones where (MedKLIP: arXiv:2301.02228, section 3.4).

    The two are averaged apart and added, as there: an item of "triplets" is an entity of a sample, one of
    "triplets_position" an entity whose position is known. An entity named twice counts once with each position.

    Args:
        entities, positions: names of the queries and positions of the head; labels with other names are not counted.
    """

    names: tuple[str, ...] = ("triplets", "triplets_position")

    def __init__(self, entities: Sequence[str], positions: Sequence[str]) -> None:
        self.entities = {name: number for number, name in enumerate(entities)}
        self.positions = {name: number for number, name in enumerate(positions)}

    def _known(self, sample: Sample) -> tuple[dict[int, float], list[tuple[int, int]]]:
        """Entity -> present; (entity, position)."""
        present: dict[int, float] = {}
        placed: set[tuple[int, int]] = set()
        for entity, there, position in triplet_labels(sample) if sample.visuals() else []:
            if entity not in self.entities:
                continue
            number = self.entities[entity]
            present[number] = max(present.get(number, 0.0), float(there))
            if position in self.positions:
                placed.add((number, self.positions[position]))
        return present, sorted(placed)

    def counts(self, batch: PackedBatch) -> dict[str, float]:
        known = [self._known(row) for row in batch.rows]
        return {
            "triplets": float(sum(len(present) for present, _ in known)),
            "triplets_position": float(sum(len(placed) for _, placed in known)),
        }

    def __call__(self, model: Any, batch: PackedBatch, visuals: EncodedVisuals) -> dict[str, Tensor]:
        known = {item: self._known(row) for item, row in enumerate(batch.rows)}
        known = {item: labels for item, labels in known.items() if labels[0]}
        shown = [current(batch.rows[item], visuals.shown[item]) for item in known]
        present, places = model.heads["triplets"](visuals.features, visuals.patches, shown)
        of_entity = [(row, n, value) for row, (labels, _) in enumerate(known.values()) for n, value in labels.items()]
        of_place = [(row, n, place) for row, (_, placed) in enumerate(known.values()) for n, place in placed]
        rows, entities, targets = present.new_tensor(of_entity).view(-1, 3).unbind(dim=1)
        presence = F.binary_cross_entropy_with_logits(present[rows.long(), entities.long()], targets, reduction="sum")
        where = torch.tensor(of_place, dtype=torch.int64, device=present.device).view(-1, 3)
        position = F.cross_entropy(places[where[:, 0], where[:, 1]], where[:, 2], reduction="sum")
        return {"triplets": presence, "triplets_position": position}
