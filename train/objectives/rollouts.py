"""Prompts out of packs, and answers into packs: tokens stay the ids that were sampled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from medvlm.data_recipes.packing import collate
from medvlm.data_recipes.sample import Sample
from medvlm.model.batch import PackedBatch
from medvlm.model.loading import Processor
from medvlm.model.processing import AXIS_KIND, PatchedVisual, Rendered
from medvlm.model.visual import Kind
from medvlm.train.rewards import Asked, Mark


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A question as the model reads it."""

    sample: Sample
    asked: Asked
    rendered: Rendered


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was written.

    Attributes:
        tokens: (n,) int64 sampled ids, the end of the turn included where there is one.
        text: without special tokens.
        cut_off: no end within the room.
    """

    tokens: np.ndarray
    text: str
    cut_off: bool


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One answer of a group, marked.

    Attributes:
        reward: of its mark, less the punishment of length.
        advantage: over its group.
    """

    prompt: Prompt
    answer: Answer
    mark: Mark
    reward: float
    advantage: float


@dataclass(frozen=True, kw_only=True)
class RolloutBatch(PackedBatch):
    """A pack of answers.

    Attributes:
        advantages: (S,) float32, one of each sample.
        items: what this pack counts for in the denominator of the loss, answers without signal included.
        old: (N,) log-probabilities of the supervised tokens under the policy before the first update; None: the same
            as now.
        reference: (N,) under the reference; None: no reference.
    """

    advantages: Tensor
    items: float
    old: Tensor | None = None
    reference: Tensor | None = None


def samples_in(batch: PackedBatch, processor: Processor) -> list[Rendered]:
    """The samples that ``collate`` laid end to end, without their loss: what follows a prompt decides on that."""
    visuals = _visuals(batch, processor)
    placements = iter(batch.placements.tolist())
    ends = batch.cu_seqlens.tolist()
    tokens, positions = batch.tokens.numpy(), batch.positions.numpy()
    found = []
    for start, stop in pairwise(ends):
        ids = tokens[start:stop]
        wanted = int((ids == processor.visual_token_id).sum())
        shown = []
        while wanted > 0:
            shown.append(visuals[next(placements)])
            wanted -= shown[-1].tokens
        found.append(
            Rendered(
                tokens=ids, supervised=np.zeros(len(ids), bool), positions=positions[start:stop], visuals=tuple(shown)
            )
        )
    return found


def _visuals(batch: PackedBatch, processor: Processor) -> list[PatchedVisual]:
    if batch.features is not None:
        raise ValueError("packs of prompts hold encoder features instead of patches; turn the feature cache off")
    kept, made = batch.kept.numpy(), _tokens_made(batch, processor)
    patches = batch.patches.numpy()
    visuals, patch, token = [], 0, 0
    for index, grid in enumerate(batch.grids.tolist()):
        count = int(np.prod(grid))
        visuals.append(
            PatchedVisual(
                patches=patches[patch : patch + count],
                grid=tuple(grid),
                spacing=tuple(batch.spacing[index].tolist()),
                axis_kind=int(batch.axis_kinds[index]),
                kept=kept[token : token + made[index]],
            )
        )
        patch, token = patch + count, token + made[index]
    return visuals


def _tokens_made(batch: PackedBatch, processor: Processor) -> list[int]:
    """How many tokens the projector makes of each visual, dropped ones included."""
    if bool(batch.kept.all()):
        return batch.visual_tokens.tolist()
    rule = processor.rule  # type: ignore[union-attr]  # only our own processor drops tokens
    kinds: dict[int, Kind] = {code: kind for kind, code in AXIS_KIND.items()}  # type: ignore[misc]
    return [
        rule.tokens(tuple(grid), kinds[kind])
        for grid, kind in zip(batch.grids.tolist(), batch.axis_kinds.tolist(), strict=True)
    ]


def rendered_answer(prompt: Rendered, answer: np.ndarray) -> Rendered:
    """A prompt with the sampled ids behind it, which alone carry loss; positions go on from the prompt's last."""
    after = prompt.positions[-1] + 1 + np.arange(len(answer))
    return Rendered(
        tokens=np.concatenate([prompt.tokens, answer]),
        supervised=np.concatenate([np.zeros(len(prompt.tokens), bool), np.ones(len(answer), bool)]),
        positions=np.concatenate([prompt.positions, after]),
        visuals=prompt.visuals,
    )


def packs_of(scored: Sequence[Scored], tokens_per_pack: int, patches_per_pack: int) -> list[RolloutBatch]:
    """Answers in packs under both budgets; a group stays together, so that its visuals are encoded once a pack."""
    return [_packed(members) for members in _filled(scored, tokens_per_pack, patches_per_pack)]


def _filled(scored: Iterable[Scored], tokens_per_pack: int, patches_per_pack: int) -> Iterator[list[Scored]]:
    members: list[Scored] = []
    tokens = patches = 0
    shown: set[int] = set()
    for one in scored:
        visuals = one.prompt.rendered.visuals
        length = len(one.prompt.rendered.tokens) + len(one.answer.tokens)
        more = sum(len(visual.patches) for visual in {id(v): v for v in visuals if id(v) not in shown}.values())
        if members and (tokens + length > tokens_per_pack or patches + more > patches_per_pack):
            yield members
            members, tokens, patches, shown = [], 0, 0, set()
            more = sum(len(visual.patches) for visual in {id(v): v for v in visuals}.values())
        members.append(one)
        tokens, patches = tokens + length, patches + more
        shown |= {id(visual) for visual in visuals}
    if members:
        yield members


def _packed(members: Sequence[Scored]) -> RolloutBatch:
    batch = collate(
        [(one.prompt.sample.sample_id, (rendered_answer(one.prompt.rendered, one.answer.tokens),)) for one in members],
        [one.prompt.sample for one in members],
    )
    return with_advantages(batch, [one.advantage for one in members], items=0.0)


def with_advantages(batch: PackedBatch, advantages: Sequence[float], *, items: float) -> RolloutBatch:
    """``batch`` with what the loss needs."""
    given = {f.name: getattr(batch, f.name) for f in fields(PackedBatch)}
    return RolloutBatch(**given, advantages=torch.tensor(advantages, dtype=torch.float32), items=items)


def empty_pack(processor: Processor) -> RolloutBatch:
    """One token without loss: every rank runs as many packs as the one that has most."""
    token = processor.tokenizer.eos_token_id
    nothing = Rendered(
        tokens=np.array([0 if token is None else token], np.int64),
        supervised=np.zeros(1, bool),
        positions=np.zeros(1, np.int64),
        visuals=(),
    )
    return with_advantages(collate([("no answer", (nothing,))]), [0.0], items=0.0)
