"""What is to be built, written down before the first shard, so that a later run knows whether it continues it."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.rows import ManifestRows
from medvlm.data_recipes.shards.build import Job
from medvlm.data_recipes.shards.byte_ranges import join
from medvlm.data_recipes.shards.layout import Layout, order_of, split_of
from medvlm.data_recipes.shards.members import Settings, encode_sample
from medvlm.data_recipes.shards.reader import FORMAT, VERSION
from medvlm.data_recipes.shards.storage import read_json, write_text
from medvlm.data_recipes.shards.tar_file import size_in_tar

PLAN = "plan.json"
PROBES = 64
"""Rows encoded in advance to learn how many make ``shard_mb``."""


def make_job(
    manifests: tuple[ManifestRows, ...],
    out: str,
    settings: Settings,
    *,
    seed: int | None = 0,
    rows_per_shard: int | None = None,
    shard_mb: float = 256.0,
) -> Job:
    """What is to be done, written to plan.json on the first run and compared with it on the next.

    Args:
        seed: of the order of rows; None keeps the manifests' order.
        rows_per_shard: when None, so many that a shard has about ``shard_mb`` million bytes: the mean of PROBES rows,
            evenly over the order, which is the same on every run.

    Raises:
        ValueError: manifests of several splits or without rows, or ``out`` holds shards of another plan.
    """
    split = split_of(manifests)
    order = order_of(sum(len(rows) for rows in manifests), seed)
    # Sizes are asked for in two ways; the one that was asked for is a part of the plan.
    wanted = {"shard_mb": shard_mb} if rows_per_shard is None else {}
    known = read_json(join(out, PLAN))
    if rows_per_shard is None:
        if known is not None and known["wanted"] == wanted:
            rows_per_shard = known["layout"]["rows_per_shard"]
        else:
            rows_per_shard = _probe(
                Layout(manifests=manifests, order=order, rows_per_shard=1, split=split), settings, shard_mb
            )
    layout = Layout(manifests=manifests, order=order, rows_per_shard=rows_per_shard, split=split)
    plan = {
        "format": FORMAT,
        "version": VERSION,
        "layout": layout.options(),
        "wanted": wanted,
        "seed": seed,
        "resolution": settings.resolution.to_dict(),
        "precision": settings.precision,
    }
    text = json.dumps(plan, indent=1, sort_keys=True) + "\n"
    if known is None:
        write_text(out, PLAN, text)
    elif known != json.loads(text):
        changed = sorted(name for name in plan if known.get(name) != json.loads(text)[name])
        raise ValueError(
            f"{out} holds shards of another plan ({', '.join(changed)} differ); repeat the command that made them, or "
            "write into another folder"
        )
    return Job(out=out, layout=layout, settings=settings, plan=hashlib.sha256(text.encode()).hexdigest())


def _probe(layout: Layout, settings: Settings, shard_mb: float) -> int:
    sizes: list[int] = []
    for place in np.unique(np.linspace(0, len(layout.order) - 1, PROBES).astype(int)).tolist():
        for key, row, where in layout.rows(place):
            if isinstance(row, BadSample):
                continue
            try:
                sizes.append(sum(size_in_tar(member) for member in encode_sample(row, key, settings, where=where)))
            except BadSample:
                continue  # it is met again, and quarantined, when its shard is made
    return max(1, int(shard_mb * 1e6 / (sum(sizes) / len(sizes)))) if sizes else 1000
