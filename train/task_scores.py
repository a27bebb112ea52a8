"""Questions that the model answers while it trains, scored as ``medvlm eval`` scores them; nothing else changes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from medvlm.eval.aggregate import aggregate, look_up
from medvlm.eval.extract import extract_rows
from medvlm.eval.generate import generate
from medvlm.eval.loaded_model import LoadedModel
from medvlm.eval.plan import make_plan, read_items
from medvlm.eval.rows import Row
from medvlm.eval.run_folder import asked_in, responses_of
from medvlm.eval.score import score_rows
from medvlm.model.loading import Processor
from medvlm.train.config import Curriculum, EvaluationConfig
from medvlm.train.distributed import of_all_ranks
from medvlm.train.engine import Engine
from medvlm.train.randomness import random_state, restore_random_state

FOLDER = "evaluation"
METRICS = (
    "closed_accuracy", "choice_accuracy", "open_token_f1", "finding_f1", "rouge_l", "box_iou", "majority_accuracy",
)  # fmt: skip
"""What goes into metrics.jsonl, of what was asked; ``majority_accuracy`` is what a constant answer would reach."""


class TaskScores:
    """Asks the questions of ``evaluation`` with the image, and scores them.

    Each rank answers a part of the questions. Random state, and which modules train, are afterwards as they were, so
    that a training with questions gives the same weights as one without.

    Args:
        evaluation: which questions, how many, and how long an answer may be.
        root: folder that its manifests are relative to.
        folder: of the stage; what was answered is kept below it, in evaluation/step-N.
        seed: of the choice of questions.

    Raises:
        ValueError: no question can be asked.
    """

    def __init__(
        self, evaluation: EvaluationConfig, root: Path, folder: Path, processor: Processor, *, seed: int
    ) -> None:
        manifests = [root / name for name in evaluation.manifests]
        items, bad = read_items(manifests)
        self.seed, self.folder, self.processor, self.evaluation = seed, folder / FOLDER, processor, evaluation
        self.items = {item.sample.sample_id: item for item in items}
        limit, room = evaluation.samples_per_manifest, evaluation.max_new_tokens
        self.plan = make_plan(items, conditions=["image"], limit=limit, max_new_tokens=room, seed=seed)
        if not self.plan.asks:
            first = f"; the first reason: {bad[0]}" if bad else ""
            raise ValueError(
                f"evaluate_every is set, but no sample of {', '.join(map(str, manifests))} can be asked{first}"
            )

    def __call__(self, engine: Engine, step: int) -> dict[str, float | None]:
        """Metric -> value after ``step`` steps, on rank 0; all ranks must call it."""
        out = self.folder / f"step-{step:08d}"
        mine = out / f"rank-{engine.rank}"
        # Answers of an earlier run up to this step: the weights are the same, but code and hardware may not be.
        shutil.rmtree(mine, ignore_errors=True)
        mine.mkdir(parents=True)
        before = random_state()
        with engine.whole_weights(), answering(engine.module) as model:
            answerer = LoadedModel(model, self.processor, name="the training", batch_size=self.evaluation.batch_size)
            asks = self.plan.asks[engine.rank :: engine.world_size]
            generate(answerer, asks, mine, chunk_size=2 * self.evaluation.batch_size, show_progress=False)
        restore_random_state(before)
        rows = self._of_all_ranks(responses_of(mine))
        return self._score(rows, out) if engine.rank == 0 else {}

    def _of_all_ranks(self, rows: list[Row]) -> list[Row]:
        known = {row["request_id"]: row for part in of_all_ranks(rows) for row in part}
        # In the order of the plan, so that the number of ranks changes nothing.
        return [known[ask.request_id] for ask in self.plan.asks if ask.request_id in known]

    def _score(self, responses: Sequence[Row], out: Path) -> dict[str, float | None]:
        if not responses:
            return {}
        asked = asked_in(self.plan.asks)
        scores = score_rows(responses, extract_rows(responses, asked, out), self.items, out, asked=asked)
        run = {"model": "during training", "step": out.name, "requests": len(self.plan.asks)}
        table = aggregate(scores, out, not_asked=self.plan.not_asked, run=run, seed=self.seed)["table"]
        found = {name: look_up(table, name, "image", "all") for name in METRICS}
        return {name: row["value"] for name, row in found.items() if row is not None}


def task_scores(
    curriculum: Curriculum, every: int | None, folder: Path, processor: Processor, *, seed: int
) -> TaskScores | None:
    """What asks in a stage; None when ``every`` is."""
    if every is None:
        return None
    assert curriculum.evaluation is not None, "Curriculum refuses evaluate_every without evaluation"
    return TaskScores(curriculum.evaluation, Path(curriculum.data.root), folder, processor, seed=seed)


@contextmanager
def answering(module: nn.Module) -> Iterator[Any]:
    """``module`` in eval mode; each of its modules goes back to the mode that it had."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield module
    finally:
        for part in training:
            part.training = True
