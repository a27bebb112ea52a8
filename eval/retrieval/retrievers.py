"""Scores of all documents for some queries: from vectors, from BM25, or from stand-ins whose result is known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medvlm.data_recipes.manifest import sha256_of
from medvlm.eval.retrieval.bm25 import BM25, TOKENS
from medvlm.eval.retrieval.corpus import Collection, Passage
from medvlm.eval.retrieval.encoders import Encoder, Role, prepared
from medvlm.eval.retrieval.vectors import VectorFile, embedded

Similarity = Literal["cosine", "dot"]


@dataclass(frozen=True, kw_only=True)
class Retriever:
    """Who finds.

    Attributes:
        name: as on the command line.
        settings: all that decides the scores besides the name.
        scores: numbers of queries -> (q, N) scores of all documents.
        counts: what a reader must know of how it was done.
    """

    name: str
    settings: dict[str, Any]
    scores: Callable[[Sequence[int]], np.ndarray]
    counts: dict[str, int] = field(default_factory=dict)


def lexical(collection: Collection, options: str) -> Retriever:
    """BM25 with ``options`` such as "k1=0.9,b=0.4,tokens=bigrams".

    Raises:
        ValueError: an unknown parameter, or pictures alone, which have no words.
    """
    given: dict[str, Any] = {"k1": 1.2, "b": 0.75, "tokens": "words"}
    for part in filter(None, options.split(",")):
        key, _, value = part.partition("=")
        if key not in given or (key == "tokens" and value not in TOKENS):
            raise ValueError(f"bm25:{options}: write k1=NUMBER, b=NUMBER, tokens={' or '.join(TOKENS)}")
        given[key] = value if key == "tokens" else float(value)
    _need_text(collection, "bm25")
    model = BM25([document.text for document in collection.documents], **given)
    return Retriever(
        name="bm25",
        settings={"variant": "lucene", **given},
        scores=lambda places: np.stack([model.scores(collection.queries[place].text) for place in places]),
        counts=_unseen(collection),
    )


def known(collection: Collection, name: str) -> Retriever:
    """The stand-ins: "oracle" knows the judgements, "constant" says the same of all, "random:SEED" draws."""
    kind, _, seed = name.partition(":")
    size = len(collection.documents)

    def scores(places: Sequence[int]) -> np.ndarray:
        rows = np.zeros((len(places), size))
        for row, place in enumerate(places):
            if kind == "random":
                rows[row] = np.random.default_rng([int(seed or 0), place]).random(size)
            elif kind == "oracle":
                for document, grade in collection.grades[place].items():
                    rows[row, document] = max(grade, 0)
        return rows

    return Retriever(name=name, settings={}, scores=scores)


def from_vectors(
    name: str, settings: dict[str, Any], queries: np.ndarray, documents: np.ndarray, similarity: Similarity
) -> Retriever:
    """Exact search over all vectors.

    Raises:
        ValueError: vectors of different lengths, or one of length 0 under cosine.
    """
    if queries.shape[1] != documents.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} numbers, documents {documents.shape[1]}")
    if similarity == "cosine":
        queries, documents = _unit(queries, "query"), _unit(documents, "document")
    settings = {**settings, "similarity": similarity}
    return Retriever(name=name, settings=settings, scores=lambda places: queries[list(places)] @ documents.T)


def _unit(vectors: np.ndarray, what: str) -> np.ndarray:
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not (lengths > 0).all() or not np.isfinite(lengths).all():
        place = int(np.flatnonzero(~((lengths[:, 0] > 0) & np.isfinite(lengths[:, 0])))[0])
        raise ValueError(f"the vector of {what} number {place} has no direction; a cosine needs one")
    return (vectors / lengths).astype(np.float32)


def precomputed(collection: Collection, folder: Path, similarity: Similarity) -> Retriever:
    """Vectors from ``folder``, see encoders.prepared; their content is part of the settings."""
    queries = prepared(folder, "queries", [query.name for query in collection.queries])
    documents = prepared(folder, "corpus", [document.name for document in collection.documents])
    files = sorted(path for role in ("queries", "corpus") for path in folder.glob(f"{role}.*"))
    hashes = {path.name: sha256_of(path) for path in files}
    return from_vectors(f"embeddings:{folder}", {"sha256": hashes}, queries, documents, similarity)


def encoded(
    collection: Collection, encoder: Encoder, out: Path, similarity: Similarity, *, told: Callable[[str], None]
) -> Retriever:
    """Embed queries and documents, keeping every batch in ``out``.

    Raises:
        ValueError: pictures without text for an encoder that reads texts only.
    """
    if not encoder.reads_images:
        _need_text(collection, encoder.name)
    sides: dict[Role, np.ndarray] = {}
    roles: tuple[tuple[Role, tuple[Passage, ...]], ...] = (
        ("queries", collection.queries), ("corpus", collection.documents),
    )  # fmt: skip
    for role, passages in roles:
        folder = out / "embeddings" / role
        keys = [_key(passage, encoder.reads_images) for passage in passages]
        embed = _call(encoder, passages, role)
        for done, of in embedded(folder, keys, embed, batch=encoder.batch):
            told(f"{role}: {done} of {of} embedded")
        sides[role] = VectorFile(folder).read(keys)
    found = from_vectors(encoder.name, dict(encoder.settings), sides["queries"], sides["corpus"], similarity)
    found.counts.update({} if encoder.reads_images else _unseen(collection))
    cut = sum(encoder.cut(passages, role) for role, passages in roles)
    if cut:
        found.counts["texts_cut_off_at_their_end"] = cut
    return found


def _call(encoder: Encoder, passages: tuple[Passage, ...], role: Role) -> Callable[[list[int]], np.ndarray]:
    return lambda places: encoder.embed([passages[place] for place in places], role)


def _key(passage: Passage, with_images: bool) -> str:
    content = [passage.text, *(sha256_of(path) for path in passage.images if with_images)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _need_text(collection: Collection, name: str) -> None:
    bare = [passage.name for passage in (*collection.queries, *collection.documents) if not passage.text]
    if bare:
        raise ValueError(f"{name} reads texts, and {len(bare)} queries or documents are pictures alone ({bare[0]!r})")


def _unseen(collection: Collection) -> dict[str, int]:
    shown = sum(bool(passage.images) for passage in (*collection.queries, *collection.documents))
    return {"passages_whose_pictures_were_not_seen": shown} if shown else {}
