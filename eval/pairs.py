"""How often a model finds the chosen answer of a held-out pair more likely than the rejected one.

python -m medvlm.eval.pairs --model CHECKPOINT --data data/test_pairs.jsonl
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.progress import track

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.packing import collate
from medvlm.data_recipes.rendering import Renderer
from medvlm.data_recipes.sample import Sample, read_jsonl
from medvlm.eval.intervals import proportion
from medvlm.eval.rows import write_json, write_rows
from medvlm.model.batch import PackedBatch
from medvlm.model.loading import Model, load_checkpoint
from medvlm.model.log_probabilities import sums_per_sample, token_log_probabilities


@dataclass(frozen=True, kw_only=True)
class PairScore:
    """Log-probability of both answers of one pair, summed over their tokens."""

    sample_id: str
    patient_id: str
    made_by: str
    chosen: float
    rejected: float

    @property
    def correct(self) -> bool:
        """The chosen answer is strictly more likely."""
        return self.chosen > self.rejected


def log_probabilities(model: Model, batch: PackedBatch) -> list[float]:
    """Sum of the log-probabilities of the supervised tokens of each sample of a pack."""
    with torch.no_grad():
        values, where = token_log_probabilities(model, batch)
    return sums_per_sample(values.double(), where, batch.cu_seqlens).tolist()


def score_pairs(
    checkpoint: str | Path, manifest: Path, *, device: str = "cpu", limit: int | None = None, progress: bool = False
) -> tuple[list[PairScore], list[BadSample]]:
    """Score the pairs of ``manifest``; those that cannot be read come back as quarantine."""
    model, processor = load_checkpoint(checkpoint, device=device)
    renderer = Renderer(processor, manifest.parent)
    scores: list[PairScore] = []
    quarantine: list[BadSample] = []
    rows = list(read_jsonl(manifest))[:limit]
    for row in track(rows, "pairs", disable=not progress):
        if isinstance(row, Sample) and row.preference is None:
            row = BadSample("no preference", where=row.sample_id, mend="name a manifest of pairs")
        if isinstance(row, BadSample):
            quarantine.append(row)
            continue
        try:
            batch = collate([(row.sample_id, renderer.sides(row))]).to(device)
        except BadSample as bad:
            quarantine.append(bad)
            continue
        chosen, rejected = log_probabilities(model, batch)
        assert row.preference is not None
        scores.append(
            PairScore(
                sample_id=row.sample_id, patient_id=row.patient_id, made_by=row.preference.made_by,
                chosen=chosen, rejected=rejected,
            )
        )  # fmt: skip
    return scores, quarantine


def pair_accuracy(scores: list[PairScore], seed: int = 0) -> dict[str, object]:
    """Accuracy with its 95 % interval over patients, and for each way in which pairs were made.

    Raises:
        ValueError: there is nothing to score.
    """
    if not scores:
        raise ValueError("no pair could be scored; see the quarantine")
    kinds = sorted({score.made_by for score in scores})

    def one(chosen: list[PairScore]) -> dict[str, object]:
        estimate = proportion([s.correct for s in chosen], [s.patient_id for s in chosen], seed=seed)
        return {"n": len(chosen), "value": estimate.value, "interval": [estimate.low, estimate.high]}

    return {**one(scores), "by": {kind: one([s for s in scores if s.made_by == kind]) for kind in kinds}}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="medvlm eval pairs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="checkpoint folder or hub id")
    parser.add_argument("--data", required=True, type=Path, help="manifest of pairs")
    parser.add_argument("--out", type=Path, help="folder for pairs.jsonl and pairs.json")
    parser.add_argument("--limit", type=int, help="score the first pairs only")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    try:
        scores, quarantine = score_pairs(
            options.model, options.data, device=options.device, limit=options.limit, progress=sys.stderr.isatty()
        )
        result = {**pair_accuracy(scores), "quarantined": len(quarantine)}
    except (BadSample, ValueError, OSError, ModuleNotFoundError) as error:
        print(f"medvlm eval pairs: {error}", file=sys.stderr)
        return 2
    if options.out is not None:
        write_rows(options.out / "pairs.jsonl", [asdict(score) for score in scores])
        write_json(options.out / "pairs.json", result)
    print(json.dumps(result, indent=1))
    for bad in quarantine[:5]:
        print(f"quarantined: {bad}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
