"""The 14 labels of CheXbert (Smit et al. 2020) of both texts, and the cosine of its embeddings, by RadEval."""

from __future__ import annotations

from typing import Any

from marking_protocol import Pair, Score, Settings, import_first, serve, version_of

PIP = "pip install radeval, in any environment, and name it by --python"


def load(settings: Settings) -> tuple[dict[str, Any], Score]:
    module = import_first(("radeval.metrics.f1chexbert.f1chexbert",), PIP)
    labeller = module.F1CheXbert(device=settings.get("device", "cuda"))
    names = list(labeller.TARGET_NAMES)

    def score(pairs: list[Pair]) -> list[dict[str, Any]]:
        texts = [pair["answer"] for pair in pairs] + [pair["reference"] for pair in pairs]
        labels, embeddings = labeller.get_labels(texts), labeller.get_embeddings(texts)
        return [
            {
                "answer": labels[place],
                "reference": labels[place + len(pairs)],
                "cosine": cosine(embeddings[place], embeddings[place + len(pairs)]),
            }
            for place in range(len(pairs))
        ]

    return dict(version_of(module), labels=names, five=list(labeller.TOP5), uncertain="counts as present"), score


def cosine(first: Any, second: Any) -> float:
    below = float((first * first).sum()) ** 0.5 * float((second * second).sum()) ** 0.5
    return float((first * second).sum()) / below if below else 0.0


if __name__ == "__main__":
    serve(load)
