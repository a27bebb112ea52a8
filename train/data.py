"""Manifests of a stage -> samples that are known to train, their lengths, and the plan of packs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch.distributed as dist

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.loader import PackPlan
from medvlm.data_recipes.mixture import Mixture
from medvlm.data_recipes.packing import Length, check_fits, length_of
from medvlm.data_recipes.rendering import Renderer
from medvlm.data_recipes.sample import Sample, read_jsonl
from medvlm.train.config import DataConfig, Stage


@dataclass(frozen=True, kw_only=True)
class StageData:
    """What a stage trains on.

    Attributes:
        samples: of all sources, end to end; every one was rendered once without fault.
        plan: their packs.
        quarantine: what was left out, and why.
        per_source: manifest -> samples kept.
    """

    samples: tuple[Sample, ...]
    plan: PackPlan
    quarantine: tuple[BadSample, ...]
    per_source: dict[str, int]

    def fingerprint(self) -> str:
        """SHA-256 (hex) of sample ids, lengths and order: what an exact resume needs to be the same."""
        digest = hashlib.sha256()
        for sample, length in zip(self.samples, self.plan.lengths, strict=True):
            digest.update(json.dumps([sample.sample_id, *asdict(length).values()]).encode())
        order = [asdict(self.plan.mixture), self.plan.tokens_per_pack, self.plan.patches_per_pack]
        digest.update(json.dumps(order).encode())
        return digest.hexdigest()

    def steps(self, stage: Stage, world_size: int) -> int:
        """Optimizer steps of ``stage``."""
        if stage.steps is not None:
            return stage.steps
        assert stage.epochs is not None
        packs = len(self.plan.round(0)) * stage.epochs
        return max(1, int(packs / (world_size * stage.packs_per_step)))


def prepare_data(
    stage: Stage,
    config: DataConfig,
    renderer: Renderer,
    *,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> StageData:
    """Read the manifests of ``stage``, render every sample once, and quarantine what fails.

    Ranks share the work and then know the same: all must call it. A preference stage takes only samples with a
    preference, and the others only samples without one.

    Args:
        progress: called with (manifest, done, total) as samples are rendered.

    Raises:
        BadSample: a manifest that does not exist, or a source of which nothing is left.
    """
    samples: list[Sample] = []
    lengths: list[Length] = []
    quarantine: list[BadSample] = []
    per_source: dict[str, int] = {}
    for source in stage.mixture:
        path = manifest_path(config, source.manifest)
        rows = [_of_objective(row, stage, path) for row in read_jsonl(path)]
        measured = _measure(rows, config, renderer, rank, world_size, partial(progress or _silent, str(path)))
        before = len(samples)
        for row, result in zip(rows, measured, strict=True):
            if isinstance(result, BadSample):
                quarantine.append(result)
            elif isinstance(row, Sample):
                samples.append(row)
                lengths.append(result)
        per_source[source.manifest] = len(samples) - before
        if len(samples) == before:
            if not rows:
                raise BadSample("the manifest has no rows", where=str(path), mend="write it again, or leave it out")
            first = quarantine[-len(rows)]
            raise BadSample(
                f"none of {len(rows)} rows can train stage {stage.name!r}; the first: {first.where}: {first.reason}",
                where=str(path),
                mend=first.mend,
            )
    mixture = Mixture(
        sizes=tuple(per_source[source.manifest] for source in stage.mixture),
        weights=tuple(source.weight for source in stage.mixture),
        seed=seed,
    )
    plan = PackPlan(
        mixture=mixture,
        lengths=tuple(lengths),
        tokens_per_pack=config.tokens_per_pack,
        patches_per_pack=config.patches_per_pack,
    )
    return StageData(samples=tuple(samples), plan=plan, quarantine=tuple(quarantine), per_source=per_source)


def _silent(manifest: str, done: int, total: int) -> None:
    """The progress of nobody who asked."""


def manifest_path(config: DataConfig, manifest: str) -> Path:
    """Where ``manifest`` lies.

    Raises:
        BadSample: it does not.
    """
    path = Path(config.root) / manifest
    if not path.is_file():
        raise BadSample("no such manifest", where=str(path), mend="check data.root and the stage's mixture")
    return path


def _of_objective(row: Sample | BadSample, stage: Stage, path: Path) -> Sample | BadSample:
    if isinstance(row, BadSample):
        return row
    wanted = stage.objective == "preference"
    if (row.preference is not None) != wanted:
        found = "has a preference" if row.preference is not None else "has no preference"
        return BadSample(
            f"the sample {found}, but stage {stage.name!r} is {stage.objective}",
            where=f"{path}, sample {row.sample_id}",
            mend="name a manifest of pairs for a preference stage, and of conversations for the others",
            sample_id=row.sample_id,
        )
    if row.question is not None or row.split == "test":
        return BadSample(
            f"a {row.split} sample{' with a question' if row.question else ''} must not be trained on",
            where=f"{path}, sample {row.sample_id}",
            mend="name a training manifest",
            sample_id=row.sample_id,
        )
    return row


def _measure(
    rows: Sequence[Sample | BadSample],
    config: DataConfig,
    renderer: Renderer,
    rank: int,
    world_size: int,
    progress: Callable[[int, int], None],
) -> list[Length | BadSample]:
    """Render this rank's share of ``rows``; return the lengths of all, in order."""
    mine: list[tuple[int, Length | BadSample]] = []
    for index in range(rank, len(rows), world_size):
        row = rows[index]
        result: Length | BadSample
        if isinstance(row, BadSample):
            result = row
        else:
            try:
                result = length_of(renderer.sides(row))
                check_fits(result, config.tokens_per_pack, config.patches_per_pack, where=row.sample_id)
            except BadSample as bad:
                result = bad
        mine.append((index, result))
        progress(index + 1, len(rows))
    if world_size == 1:
        return [result for _, result in mine]
    shares: list[list[tuple[int, Length | BadSample]]] = [[] for _ in range(world_size)]
    dist.all_gather_object(shares, mine)
    return [result for _, result in sorted((item for share in shares for item in share), key=lambda item: item[0])]
