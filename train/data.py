"""Manifests of a stage -> its samples where they lie, the plan of their packs, and how many steps they make."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn

from medvlm.data_recipes.cost import COUNT_TOKENS, Cost, cost_of_model
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.lengths import Lengths
from medvlm.data_recipes.mixture import Mixture
from medvlm.data_recipes.pack_plan import PackPlan, Position
from medvlm.data_recipes.packing import Limits
from medvlm.data_recipes.quarantine import FEWEST, Quarantine
from medvlm.data_recipes.rendering import Renderer
from medvlm.data_recipes.rows import Joined, ManifestRows, Rows
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.shards.cache import ShardCache
from medvlm.data_recipes.shards.reader import ShardSet
from medvlm.model.flops import model_flops
from medvlm.train.config import DataConfig, Stage
from medvlm.train.objectives.auxiliary_labels import check_labels
from medvlm.train.objectives.contrastive import paired
from medvlm.train.rewards import asked_of, why_not_marked


@dataclass(frozen=True, kw_only=True)
class StageData:
    """What a stage trains on.

    Attributes:
        rows: of all sources, end to end; none of them is in memory.
        plan: their packs.
        quarantine: what is left out, and why; it grows while windows of samples are measured and packs are read.
    """

    rows: Joined
    plan: PackPlan
    quarantine: Quarantine = field(default_factory=Quarantine)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of rows and order: what an exact resume needs to be the same."""
        settings = json.dumps([self.rows.fingerprint, self.plan.lengths.settings, *self.plan.describe()])
        return hashlib.sha256(settings.encode()).hexdigest()

    def steps(self, stage: Stage, world_size: int) -> int:
        """Optimizer steps of ``stage``: those it states, or those that its epochs or tokens make.

        For epochs and tokens, every sample that will be trained on is measured first; what an earlier run measured is
        read from its file.
        """
        if stage.steps is not None:
            return stage.steps
        per_step = world_size * stage.packs_per_step
        if stage.epochs is not None:
            return max(1, int(sum(1 for _ in self.plan.round(0)) * stage.epochs / per_step))
        assert stage.tokens is not None
        tokens = packs = 0
        for members in self._members():
            if tokens >= stage.tokens:
                break
            tokens += sum(length.tokens for length in self.plan.lengths.of(members).values())
            packs += 1
        return max(1, -(-packs // per_step))  # to the next whole step

    def _members(self) -> Iterator[list[int]]:
        for _, members in self.plan.packs(Position()):
            yield members


def prepare_data(
    stage: Stage,
    config: DataConfig,
    renderer: Renderer,
    *,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    lengths_folder: Path | None = None,
    quarantine_path: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    cost: Cost = COUNT_TOKENS,
) -> StageData:
    """Index the manifests of ``stage``; samples are measured window by window when the plan comes to them.

    A preference stage takes only samples with a preference, and the others only samples without one; a reinforcement
    stage takes training questions and conversations that a reward can mark, and no other takes questions. What cannot
    be used is quarantined when it is met.

    Args:
        lengths_folder: where measured lengths are kept, for all ranks of a machine and for the next start.
        quarantine_path: JSON lines of what is left out.
        progress: called with (what, done, total) as samples of a window are measured.
        cost: of ``stage_cost``; the default counts tokens.

    Raises:
        BadSample: a manifest that does not exist or has no rows.
    """
    names = [source.manifest for source in stage.mixture]
    rows = Joined([open_rows(config, name) for name in names])
    for name, source in zip(names, rows.sources, strict=True):
        if not len(source):
            raise BadSample(
                "the manifest has no rows", where=str(Path(config.root) / name), mend="write it again, or leave it out"
            )
    lengths = Lengths(
        rows,
        renderer.length,
        accept=lambda row, index: _accept(row, stage, Path(config.root) / names[rows.place(index)[0]]),
        limits=Limits(
            tokens=config.tokens_per_pack, patches=config.patches_per_pack, cost=config.cost_per_pack, weights=cost
        ),
        folder=lengths_folder,
        # A length that is known has been accepted: what another objective accepted says nothing here.
        settings=json.dumps([_accepted_as(stage), renderer.settings()]),
        root=renderer.root,
        rank=rank,
        world_size=world_size,
    )
    quarantine = Quarantine(quarantine_path, config.quarantine_limit)
    plan = PackPlan(
        mixture=Mixture(
            sizes=tuple(len(source) for source in rows.sources),
            weights=tuple(source.weight for source in stage.mixture),
            seed=seed,
            temperature=stage.temperature,
        ),
        lengths=lengths,
        tokens_per_pack=config.tokens_per_pack,
        patches_per_pack=config.patches_per_pack,
        cost=cost,
        cost_per_pack=config.cost_per_pack,
        window=config.window,
        seen=_Seen(stage, names, rows, lengths, quarantine, writes=rank == 0),
        progress=partial(progress, "samples") if progress is not None else None,
    )
    return StageData(rows=rows, plan=plan, quarantine=quarantine)


def stage_cost(model: nn.Module, stage: Stage, config: DataConfig) -> Cost:
    """What a sample of ``stage`` costs: as ``data.cost`` says, or by the FLOPs of the stage with ``model``."""
    if config.cost is not None:
        return config.cost
    adapted = stage.lora.components if stage.lora is not None else ()
    return cost_of_model(model_flops(model), tuple(stage.learning_rate.of_components()), adapted)


class _Seen:
    """Takes note of each window that was measured: what is refused, and a source of which nothing is left."""

    def __init__(
        self, stage: Stage, names: list[str], rows: Joined, lengths: Lengths, quarantine: Quarantine, *, writes: bool
    ) -> None:
        self.stage, self.names, self.rows, self.lengths = stage, names, rows, lengths
        self.quarantine, self.writes = quarantine, writes
        self._met = np.zeros(len(rows), bool)
        self._ends = np.cumsum([len(source) for source in rows.sources])
        self._usable, self._refused = (np.zeros(len(names), np.int64) for _ in range(2))

    def __call__(self, samples: np.ndarray) -> None:
        new = np.unique(samples)
        new = new[~self._met[new]]
        self._met[new] = True
        refused = np.array([index in self.lengths.refused for index in new.tolist()], bool)
        self._usable += self._count(new[~refused])
        self._refused += self._count(new[refused])
        bad = [self.lengths.refused[index] for index in new[refused].tolist()]
        self.quarantine.add(bad, met=len(new), write=self.writes)
        for source, name in enumerate(self.names):
            # A few bad rows of a source that is drawn seldom say nothing of the others.
            enough = min(len(self.rows.sources[source]), FEWEST)
            if not self._usable[source] and self._refused[source] >= enough:
                first = next(
                    (b for i, b in zip(new[refused], bad, strict=True) if self.rows.place(i)[0] == source), None
                )
                raise BadSample(
                    f"none of {self._refused[source]} rows can train stage {self.stage.name!r}"
                    + (f"; one of them: {first.where}: {first.reason}" if first is not None else ""),
                    where=name,
                    mend="see quarantine.jsonl of the stage" if first is None else first.mend,
                )

    def _count(self, indices: np.ndarray) -> np.ndarray:
        """How many of ``indices`` belong to each source."""
        return np.bincount(np.searchsorted(self._ends, indices, side="right"), minlength=len(self._ends))


def open_rows(config: DataConfig, manifest: str) -> Rows:
    """The rows of a manifest, or of a set of shards (a folder or a URL), relative to ``config.root``.

    Raises:
        BadSample: neither is there.
    """
    place = manifest if "://" in manifest else str(Path(config.root) / manifest)
    if Path(place).is_dir() or "://" in place:
        folder = config.shard_cache
        limit = int(config.shard_cache_gib * 2**30)
        return ShardSet.open(place, cache=None if folder is None else ShardCache(folder=Path(folder), max_bytes=limit))
    return ManifestRows(place)


def _accepted_as(stage: Stage) -> str:
    """What tells apart stages that take other samples."""
    if stage.auxiliary:
        return f"{stage.objective} {sorted(loss.kind for loss in stage.auxiliary)}"
    if stage.reinforcement is None:
        return stage.objective
    return f"{stage.objective} {sorted(stage.reinforcement.rewards)} {stage.reinforcement.server is not None}"


def _accept(row: Sample, stage: Stage, manifest: Path) -> None:
    wanted = stage.objective == "preference"
    if (row.preference is not None) != wanted:
        found = "has a preference" if row.preference is not None else "has no preference"
        raise BadSample(
            f"the sample {found}, but stage {stage.name!r} is {stage.objective}",
            where=f"{manifest}, sample {row.sample_id}",
            mend="name a manifest of pairs for a preference stage, and of conversations for the others",
            sample_id=row.sample_id,
        )
    if stage.objective == "contrastive" and not paired(row):
        raise BadSample(
            f"the sample has no {'text' if row.visuals() else 'visual'}, but stage {stage.name!r} is contrastive",
            where=f"{manifest}, sample {row.sample_id}",
            mend="name a manifest of visuals with captions or reports",
            sample_id=row.sample_id,
        )
    if stage.objective == "reinforcement" and row.split != "test":
        _accept_asked(row, stage, manifest)
        return
    if row.question is not None or row.split == "test":
        raise BadSample(
            f"a {row.split} sample{' with a question' if row.question else ''} must not be trained on",
            where=f"{manifest}, sample {row.sample_id}",
            mend="name a training manifest",
            sample_id=row.sample_id,
        )
    for loss in stage.auxiliary:
        check_labels(row, loss.kind, f"{manifest}, sample {row.sample_id}")


def _accept_asked(row: Sample, stage: Stage, manifest: Path) -> None:
    """Refuse what no reward of ``stage`` can mark, and questions that are kept for evaluation."""
    config, asked = stage.reinforcement, asked_of(row)
    assert config is not None
    mend = "name a manifest of training samples with questions, or conversations that end with an answer"
    if row.question is not None and row.split != "train":
        reason: str | None = f"a {row.split} sample with a question must not be trained on"
    elif asked is None:
        reason = "the sample asks nothing that was answered"
    elif config.server is not None and any(visual.kind != "image" for visual in row.visuals()):
        reason, mend = "a server takes images only, and the sample shows a volume or a clip", "remove server"
    else:
        try:
            reason = why_not_marked(asked, config.rewards)
        except ValueError as error:
            reason = str(error)
        mend = "choose rewards for this kind of question (docs/reinforcement.md), or mend the reference answer"
    if reason is not None:
        raise BadSample(reason, where=f"{manifest}, sample {row.sample_id}", mend=mend, sample_id=row.sample_id)
