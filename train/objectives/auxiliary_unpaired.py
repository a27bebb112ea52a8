"""Findings of images and of reports that do not belong together, told by one classifier."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from medvlm.data_recipes.sample import Sample
from medvlm.model.batch import PackedBatch
from medvlm.model.head_contrastive import pack_texts, text_states
from medvlm.model.head_pooling import EncodedVisuals
from medvlm.train.objectives.auxiliary_labels import current, finding_labels


class Unpaired:
    """Binary cross-entropy of each known finding of what is shown, and of what is said, by one classifier (MedRAT).

    One item of "unpaired_visual" is one label of a sample that shows something, one of "unpaired_text" one label of a
    sample that only says something. They are averaged apart and added, as in MedRAT: the larger of two collections does
    not drown the other. Neither compares samples, so that no split into packs and ranks changes the sums.

    A text is what the assistant says, read by the decoder without the rest of the conversation, and stands as the mean
    over its tokens: in the conversation a question could give the label away, and the mean over input embeddings would
    not know "effusion" from "no effusion". It costs a pass of the decoder over these texts.

    Args:
        findings: names of the outputs of the head.
        paired_texts: read the texts of samples that show something, too.
        tokenizer: of the texts.
    """

    names: tuple[str, ...] = ("unpaired_visual", "unpaired_text")

    def __init__(self, findings: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, paired_texts: bool) -> None:
        self.findings, self.paired_texts = tuple(findings), paired_texts
        # A tokenizer keeps how it takes special tokens from call to call, and the loader's thread uses the other one.
        self.tokenizer = copy.deepcopy(tokenizer)

    def _known(self, sample: Sample) -> dict[int, float]:
        labels = finding_labels(sample)
        return {n: float(labels[name]) for n, name in enumerate(self.findings) if name in labels}

    def _items(self, rows: Sequence[Sample]) -> tuple[dict[int, dict[int, float]], dict[int, dict[int, float]]]:
        """Of what is shown and of what is said: sample -> column -> label, without samples that have no label."""
        known = {item: labels for item, row in enumerate(rows) if (labels := self._known(row))}
        visual = {item: labels for item, labels in known.items() if rows[item].visuals()}
        text = {
            item: labels
            for item, labels in known.items()
            if rows[item].said() and (self.paired_texts or item not in visual)
        }
        return visual, text

    def counts(self, batch: PackedBatch) -> dict[str, float]:
        parts = self._items(batch.rows)
        return {name: float(sum(map(len, part.values()))) for name, part in zip(self.names, parts, strict=True)}

    def __call__(self, model: Any, batch: PackedBatch, visuals: EncodedVisuals) -> dict[str, Tensor]:
        visual, text = self._items(batch.rows)
        shown = [current(batch.rows[item], visuals.shown[item]) for item in visual]
        texts = pack_texts(self.tokenizer, [batch.rows[item].said() for item in text]).to(batch.tokens.device)
        # Of no text at all one end-of-text token has been read, of which no row is left.
        states = text_states(model, texts, "mean")[: len(text)]
        logits = model.heads["unpaired"](visuals.features, states, visuals.patches, shown)
        parts = zip(self.names, logits, (visual, text), strict=True)
        return {name: _cross_entropy(found, labels) for name, found, labels in parts}


def _cross_entropy(logits: Tensor, known: Mapping[int, Mapping[int, float]]) -> Tensor:
    """The sum over the labels of each row of ``logits`` (N, findings)."""
    where = [(row, column) for row, labels in enumerate(known.values()) for column in labels]
    rows, columns = torch.tensor(where, dtype=torch.int64, device=logits.device).view(-1, 2).unbind(dim=1)
    targets = logits.new_tensor([value for labels in known.values() for value in labels.values()])
    return F.binary_cross_entropy_with_logits(logits[rows, columns], targets, reduction="sum")
