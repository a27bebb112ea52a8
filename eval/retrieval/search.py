"""Documents that are found for queries: every measure with its interval, and the rankings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from medvlm.eval.intervals import clustered
from medvlm.eval.retrieval.corpus import Collection
from medvlm.eval.retrieval.measures import measures_of, rank
from medvlm.eval.retrieval.retrievers import Retriever

BLOCK = 64
"""Queries scored at a time."""


def search(collection: Collection, retriever: Retriever) -> Iterator[dict[str, Any]]:
    """A row per query: its measures and its best documents as [name, score, grade]."""
    for start in range(0, len(collection.queries), BLOCK):
        places = range(start, min(start + BLOCK, len(collection.queries)))
        for place, scores in zip(places, retriever.scores(list(places)), strict=True):
            grades = collection.grades[place]
            ranking = rank(scores, grades)
            found = [
                [collection.documents[number].name, float(np.float32(score)), grades.get(int(number), 0)]
                for number, score in zip(ranking.places, ranking.scores, strict=True)
            ]
            yield {
                "query": collection.queries[place].name,
                "relevant": sum(g > 0 for g in (*grades.values(), *collection.absent[place])),
                **measures_of(ranking, grades, missing=collection.absent[place]),
                "found": found,
            }


def rows_of(collection: Collection, found: list[dict[str, Any]], *, seed: int = 0) -> list[dict[str, Any]]:
    """The mean of every measure over queries, each query drawn as one."""
    names = [key for key in found[0] if key not in ("query", "relevant", "found")]
    queries = [row["query"] for row in found]
    rows: list[dict[str, Any]] = []
    for name in names:
        counts = np.array([[row[name], 1.0] for row in found])
        estimate = clustered(counts, queries, seed=seed, share=True)
        rows.append(
            {
                "group": "all", "n": len(found), "clusters": len(found), "candidates": len(collection.documents),
                "metric": name, "value": estimate.value, "low": estimate.low, "high": estimate.high,
                "method": estimate.method,
            }
        )  # fmt: skip
    return rows
