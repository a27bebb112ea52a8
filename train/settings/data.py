"""DataConfig: how samples become packs."""

from __future__ import annotations

from dataclasses import dataclass, field

from medvlm.data_recipes.cost import Cost
from medvlm.data_recipes.window import WINDOW
from medvlm.train.settings.checks import aside, check_range, later, refuse


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How samples become packs.

    Attributes:
        root: folder that manifests of the stages are relative to.
        tokens_per_pack: most tokens in one pack (one forward pass of one process).
        patches_per_pack: most patches in one pack.
        cost: what a sample costs, for ranks to get packs of like cost. None: by the FLOPs of the stage, in units of one
            token that attends to nothing.
        cost_per_pack: most of that cost in one pack; None: no limit.
        cache: keep processed visuals on disk, in the run folder.
        cache_gib: most GiB of them; the least recently used go first. None: no limit.
        feature_cache: keep what a frozen encoder makes of visuals, in the run folder, and read that from then on.
        feature_cache_gib: most GiB of it. None: no limit.
        shard_cache: folder for copies of remote shards that all processes of a machine share; None reads byte ranges.
        shard_cache_gib: most GiB of them; the least recently used go first.
        workers: processes of each rank that read and decode; 0 reads in a thread. Packs are the same for any number.
        window: samples that are measured and packed together.
        quarantine_limit: largest share of the samples met that may be left out before the training stops.
    """

    root: str = field(metadata={"aside": True})
    tokens_per_pack: int = 4096
    patches_per_pack: int = 8192
    cost: Cost | None = later(None)
    cost_per_pack: float | None = later(None)
    cache: bool = aside(False)
    cache_gib: float | None = aside(None)
    feature_cache: bool = later(False)
    feature_cache_gib: float | None = aside(None)
    shard_cache: str | None = aside(None)
    shard_cache_gib: float = aside(64.0)
    workers: int = aside(0)
    window: int = later(WINDOW)
    quarantine_limit: float = aside(0.1)

    def __post_init__(self) -> None:
        check_range("tokens_per_pack", self.tokens_per_pack, 1)
        check_range("patches_per_pack", self.patches_per_pack, 1)
        if self.cost_per_pack is not None:
            check_range("cost_per_pack", self.cost_per_pack, 1e-9)
        check_range("shard_cache_gib", self.shard_cache_gib, 1e-6)
        check_range("workers", self.workers, 0)
        check_range("window", self.window, 1)
        check_range("quarantine_limit", self.quarantine_limit, 0, 1)
        if self.feature_cache_gib is not None:
            check_range("feature_cache_gib", self.feature_cache_gib, 1e-6)
            if not self.feature_cache:
                refuse("feature_cache_gib is set, but there is no such cache", "set data.feature_cache: true")
        if self.cache_gib is not None:
            check_range("cache_gib", self.cache_gib, 1e-6)
            if not self.cache:
                refuse("cache_gib is set, but there is no cache", "set data.cache: true, or remove cache_gib")
