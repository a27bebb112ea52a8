"""What RadCliQ is made of but for BLEU: graphs of the first RadGraph, BERTScore, cosine of CheXbert embeddings."""

from __future__ import annotations

from typing import Any

import bertscore_worker
import chexbert_worker
import radgraph_worker
from marking_protocol import Pair, Score, Settings, serve


def load(settings: Settings) -> tuple[dict[str, Any], Score]:
    parts = {
        "radgraph": radgraph_worker.load(dict(settings, model="radgraph")),
        "bertscore": bertscore_worker.load({}),
        "chexbert": chexbert_worker.load(settings),
    }

    def score(pairs: list[Pair]) -> list[dict[str, Any]]:
        graphs, likeness, labels = (parts[name][1](pairs) for name in ("radgraph", "bertscore", "chexbert"))
        return [
            {"graphs": graph, "bertscore": like["bertscore"], "semb": label["cosine"]}
            for graph, like, label in zip(graphs, likeness, labels, strict=True)
        ]

    return {name: about for name, (about, _) in parts.items()}, score


if __name__ == "__main__":
    serve(load)
