"""RadGraph graphs of both texts, by the package radgraph or RadEval's copy of it; they are compared by the parent."""

from __future__ import annotations

from typing import Any

from marking_protocol import Pair, Score, Settings, import_first, serve, version_of

PIP = "pip install radeval (or radgraph, which needs transformers below 5), in any environment, and name it by --python"


def load(settings: Settings) -> tuple[dict[str, Any], Score]:
    module = import_first(("radeval.metrics.radgraph", "radgraph"), PIP)
    name = settings.get("model", "radgraph-xl")
    model = module.RadGraph(model_type=name)

    def graphs(texts: list[str]) -> list[dict[str, Any]]:
        places = [place for place, text in enumerate(texts) if text.strip()]
        found = model([texts[place] for place in places]) if places else {}
        graphs: list[dict[str, Any]] = [{"entities": {}} for _ in texts]
        for number, place in enumerate(places):
            entities = found[str(number)]["entities"]
            graphs[place] = {
                "entities": {
                    key: {"tokens": one["tokens"], "label": one["label"], "relations": one["relations"]}
                    for key, one in entities.items()
                }
            }
        return graphs

    def score(pairs: list[Pair]) -> list[dict[str, Any]]:
        both = graphs([pair["answer"] for pair in pairs] + [pair["reference"] for pair in pairs])
        return [
            {"answer": answer, "reference": reference}
            for answer, reference in zip(both[: len(pairs)], both[len(pairs) :], strict=True)
        ]

    return dict(version_of(module), model=name), score


if __name__ == "__main__":
    serve(load)
