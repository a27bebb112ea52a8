"""GREEN (Ostmeier et al. 2024), by the package green-score: a language model of 7 billion parameters, needs a GPU."""

from __future__ import annotations

import tempfile
from typing import Any

from marking_protocol import Pair, Score, Settings, import_first, serve, version_of

PIP = "pip install green-score, in any environment with a GPU, and name it by --python"


def load(settings: Settings) -> tuple[dict[str, Any], Score]:
    module = import_first(("green_score",), PIP)
    name = settings.get("model", "StanfordAIMI/GREEN-radllama2-7b")
    folder = tempfile.mkdtemp()  # it writes a table of the texts, which must not lie about
    scorer = module.GREEN(name, output_dir=folder)

    def score(pairs: list[Pair]) -> list[dict[str, Any]]:
        given = scorer([pair["reference"] for pair in pairs], [pair["answer"] for pair in pairs])
        values, table = given[2], given[-1]
        return [
            {"green": None if value is None else float(value), "matched": int(matched)}
            for value, matched in zip(values, table["Matched Findings"], strict=True)
        ]

    return dict(version_of(module), model=name), score


if __name__ == "__main__":
    serve(load)
