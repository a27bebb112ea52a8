"""BERTScore F1 (Zhang et al. 2020), by the package bert-score."""

from __future__ import annotations

from typing import Any

from marking_protocol import Pair, Score, Settings, import_first, serve, version_of

PIP = "pip install bert-score (or radeval), in any environment, and name it by --python"


def load(settings: Settings) -> tuple[dict[str, Any], Score]:
    module = import_first(("bert_score", "radeval.metrics.bertscore._vendor"), PIP)
    model, layers = settings.get("model", "distilroberta-base"), int(settings.get("layers", 5))
    rescaled = bool(settings.get("rescaled", True))
    scorer = module.BERTScorer(
        model_type=model, num_layers=layers, lang="en", rescale_with_baseline=rescaled, idf=False
    )

    def score(pairs: list[Pair]) -> list[dict[str, Any]]:
        _, _, f1 = scorer.score([pair["answer"] for pair in pairs], [pair["reference"] for pair in pairs])
        return [{"bertscore": float(value)} for value in f1]

    return dict(version_of(module), model=model, layers=layers, rescaled=rescaled, idf=False), score


if __name__ == "__main__":
    serve(load)
