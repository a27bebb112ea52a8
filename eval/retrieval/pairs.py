"""Visuals and texts of manifests that find each other: recall and median rank in both directions, by dimension."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import sha256_of
from medvlm.data_recipes.sample import Sample, VisualRef, read_jsonl
from medvlm.eval.embeddings import PairEmbeddings
from medvlm.eval.intervals import NOTHING, Estimate, clustered, proportion
from medvlm.eval.plan import Item
from medvlm.eval.retrieval.encoders import prepared
from medvlm.eval.retrieval.vectors import VectorFile, embedded
from medvlm.eval.scorers.retrieval import ranks

KS = (1, 5, 10)
DIRECTIONS = {"text_for_visual": "the text of a visual", "visual_for_text": "the visual of a text"}
BINS = 512
"""Of ranks, for the interval of their median: at most so many groups are drawn again."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Samples that show and say something.

    Attributes:
        left_out: reason -> number of samples.
    """

    items: tuple[Item, ...]
    left_out: dict[str, int]

    def dimensions(self) -> dict[str, list[int]]:
        """Group -> places: "all", and each dimension where there are several."""
        groups: dict[str, list[int]] = {"all": list(range(len(self.items)))}
        for place, item in enumerate(self.items):
            groups.setdefault(item.dimension, []).append(place)
        return groups if len(groups) > 2 else {"all": groups["all"]}


def read_pairs(manifests: Sequence[Path], limit: int | None = None) -> Pairs:
    """The samples of ``manifests`` that have a visual and a text.

    Args:
        limit: at most so many, spread evenly over all of them.

    Raises:
        ValueError: fewer than two, or an id stands twice.
    """
    items: dict[str, Item] = {}
    left_out: dict[str, int] = {}
    for manifest in manifests:
        for sample in read_jsonl(manifest):
            why = _unusable(sample)
            if why or not isinstance(sample, Sample):
                left_out[why] = left_out.get(why, 0) + 1
            elif sample.sample_id in items:
                raise ValueError(f"sample_id {sample.sample_id!r} stands twice; make it unique over all manifests")
            else:
                items[sample.sample_id] = Item(sample=sample, manifest=manifest)
    kept = list(items.values())
    if limit is not None and limit < len(kept):
        kept = [kept[place * len(kept) // limit] for place in range(limit)]
    if len(kept) < 2:
        raise ValueError(f"{len(kept)} samples show and say something; at least two are needed (left out: {left_out})")
    return Pairs(items=tuple(kept), left_out=left_out)


def _unusable(sample: Sample | BadSample) -> str:
    if isinstance(sample, BadSample):
        return f"unreadable row: {sample.reason}"
    if not sample.visuals():
        return "shows nothing"
    return "" if sample.said().strip() else "says nothing"


def embed(
    pairs: Pairs,
    encode: Callable[[Sequence[Sample], Path], np.ndarray],
    out: Path,
    *,
    batch: int,
    told: Callable[[str], None],
) -> PairEmbeddings:
    """Embed every pair, keeping each batch in ``out``.

    Args:
        encode: samples, root of their paths -> (N, 2 * size): visuals, then texts.
    """
    folder = out / "embeddings" / "pairs"
    absolute = [_absolute(item) for item in pairs.items]
    keys = [_key(sample) for sample in absolute]

    def some(places: list[int]) -> np.ndarray:
        return encode([absolute[place] for place in places], Path("/"))

    for done, of in embedded(folder, keys, some, batch=batch):
        told(f"pairs: {done} of {of} embedded")
    both = VectorFile(folder).read(keys)
    half = both.shape[1] // 2
    return PairEmbeddings(visual=both[:, :half], text=both[:, half:], texts=_texts(pairs))


def from_folder(pairs: Pairs, folder: Path) -> PairEmbeddings:
    """Vectors that somebody else has made: queries.* hold the visuals, corpus.* the texts, by sample_id.

    Raises:
        BadSample: see encoders.prepared.
        ValueError: a vector without direction, or of another length.
    """
    names = [item.sample.sample_id for item in pairs.items]
    sides = [prepared(folder, role, names) for role in ("queries", "corpus")]
    if sides[0].shape != sides[1].shape:
        raise ValueError(f"visuals have {sides[0].shape[1]} numbers, texts {sides[1].shape[1]}")
    lengths = [np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
    if not all((length > 0).all() and np.isfinite(length).all() for length in lengths):
        raise ValueError(f"a vector in {folder} has no direction; a cosine needs one")
    visual, text = (side / length for side, length in zip(sides, lengths, strict=True))
    return PairEmbeddings(visual=visual, text=text, texts=_texts(pairs))


def _texts(pairs: Pairs) -> tuple[str, ...]:
    return tuple(item.sample.said() for item in pairs.items)


def _absolute(item: Item) -> Sample:
    def part(value: str | VisualRef) -> str | VisualRef:
        return value if isinstance(value, str) else replace(value, path=str((item.root / value.path).resolve()))

    turns = tuple(replace(turn, content=tuple(part(one) for one in turn.content)) for turn in item.sample.turns)
    return replace(item.sample, turns=turns)


def _key(sample: Sample) -> str:
    """What decides the two vectors: the conversation, with the content of the files and not their places."""
    content: list[Any] = [sample.said()]
    for turn in sample.turns:
        for part in turn.content:
            shown = part if isinstance(part, str) else [part.kind, _content(part), part.options]
            content.append([turn.role, shown])
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _content(ref: VisualRef) -> str:
    if ref.sha256 is not None:
        return ref.sha256
    path = Path(ref.path)
    return sha256_of(path) if path.exists() else f"not there: {path}"


def rows_of(pairs: Pairs, held: PairEmbeddings, *, seed: int = 0) -> list[dict[str, Any]]:
    """Recall among the k most similar and the median rank, each way, for every dimension within itself.

    Intervals are over patients. The candidates are all of the group, so that their number stands in every row; a text
    that says the same as the right one is right too.
    """
    rows: list[dict[str, Any]] = []
    for group, places in pairs.dimensions().items():
        part = PairEmbeddings(
            visual=held.visual[places], text=held.text[places], texts=tuple(held.texts[place] for place in places)
        )
        similarity, right = part.similarity(), part.right()
        patients = np.array([pairs.items[place].sample.patient_id for place in places])
        shared = {
            "group": group, "n": len(places), "clusters": len(set(patients)), "candidates": len(places),
            "different_texts": len(set(part.texts)),
        }  # fmt: skip
        for direction, both in (("text_for_visual", (similarity, right)), ("visual_for_text", (similarity.T, right.T))):
            found = ranks(*both)
            for k in KS:
                estimate = proportion(found <= k, patients, seed=seed)
                rows.append({**shared, "metric": f"{direction}_recall_at_{k}", **_written(estimate)})
            rows.append(
                {**shared, "metric": f"{direction}_median_rank", **_written(median(found, patients, seed=seed))}
            )
    return rows


def median(found: np.ndarray, patients: np.ndarray, *, seed: int = 0) -> Estimate:
    """Median of ranks with its interval over patients.

    The value is numpy's. A resample is known by how often each rank occurs in it, so that its median is the lower of
    the two middle ones; of more than BINS different ranks, neighbours are drawn together.
    """
    if not len(found):
        return NOTHING
    different = np.unique(found)
    if len(different) > BINS:
        different = np.unique(np.quantile(found, np.linspace(0, 1, BINS), method="lower"))
    column = np.searchsorted(different, found, side="right") - 1
    counts = np.zeros((len(found), len(different)))
    counts[np.arange(len(found)), column] = 1

    def middle(sums: np.ndarray) -> np.ndarray:
        total = sums.sum(axis=1)
        place = np.argmax(np.cumsum(sums, axis=1) >= total[:, None] / 2, axis=1)
        return np.where(total > 0, different[place].astype(np.float64), np.nan)

    return replace(clustered(counts, patients, middle, seed=seed), value=float(np.median(found)))


def _written(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "method": estimate.method}


def ranking_rows(pairs: Pairs, held: PairEmbeddings, *, depth: int) -> list[dict[str, Any]]:
    """For each query its most similar candidates, wrong ones first among equals."""
    names = [item.sample.sample_id for item in pairs.items]
    similarity, right = held.similarity(), held.right()
    rows: list[dict[str, Any]] = []
    for direction, scores, truth in (
        ("text_for_visual", similarity, right), ("visual_for_text", similarity.T, right.T),
    ):  # fmt: skip
        for place, name in enumerate(names):
            order = np.lexsort((truth[place], -scores[place]))[:depth]
            found = [[names[other], round(float(scores[place, other]), 6), int(truth[place, other])] for other in order]
            rows.append({"direction": direction, "query": name, "found": found})
    return rows
