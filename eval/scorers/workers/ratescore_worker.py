"""RaTEScore (Zhao et al. 2024), by its package or RadEval's copy."""

from __future__ import annotations

from typing import Any

from marking_protocol import Pair, Score, Settings, import_first, serve, version_of

PIP = "pip install RaTEScore (or radeval), in any environment, and name it by --python"


def load(settings: Settings) -> tuple[dict[str, Any], Score]:
    module = import_first(("RaTEScore", "radeval.metrics.RaTEScore.scorer"), PIP)
    import torch

    scorer = module.RaTEScore(use_gpu=torch.cuda.is_available())

    def score(pairs: list[Pair]) -> list[dict[str, Any]]:
        given = scorer.compute_score([pair["answer"] for pair in pairs], [pair["reference"] for pair in pairs])
        values = given[0] if isinstance(given, tuple) else given  # RadEval gives the entities besides
        return [{"ratescore": float(value)} for value in values]

    return dict(version_of(module), weights="long"), score


if __name__ == "__main__":
    serve(load)
