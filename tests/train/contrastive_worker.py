"""Run by torchrun from test_contrastive_ranks.py: steps of contrastive and auxiliary losses on every engine."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from medvlm.data_recipes.packing import collate
from medvlm.data_recipes.rendering import Renderer
from medvlm.data_recipes.sample import from_json
from medvlm.model.batch import PackedBatch
from medvlm.model.loading import load_checkpoint
from medvlm.model.processing import MedVLMProcessor
from medvlm.train.assemble import component_of, set_trainable
from medvlm.train.config import (
    AuxiliaryLoss,
    ContrastiveConfig,
    EngineConfig,
    LearningRates,
    Lora,
    Source,
    Stage,
)
from medvlm.train.distributed import disconnect
from medvlm.train.engine import make_engine
from medvlm.train.loop import items, mean
from medvlm.train.objectives.choice import make_objective
from medvlm.train.optim import parameter_groups, scaled_learning_rates
from medvlm.train.randomness import seed_everything

RATE = 1e-3
ALL = LearningRates(vision=RATE, text=RATE, heads=RATE)
VARIANTS: dict[str, dict[str, Any]] = {
    "clip": {"learning_rate": ALL},
    "siglip": {
        "learning_rate": LearningRates(heads=RATE),
        "lora": Lora(rank=2, targets=("vision.mlp", "text.mlp"), learning_rate=RATE),
        "contrastive": ContrastiveConfig(size=16, loss="siglip", pooling="attention", text="mean"),
    },
}
NAMES = ("nodule", "effusion", "mass")
VARIANTS["auxiliaries"] = {
    "objective": "supervised",
    "learning_rate": LearningRates(vision=RATE, projector=RATE, text=RATE, heads=RATE),
    "auxiliary": (
        AuxiliaryLoss(kind="findings", findings=NAMES, positive_weights={"mass": 3.0}, pooling="attention"),
        AuxiliaryLoss(kind="progression", findings=NAMES, weight=0.5),
        AuxiliaryLoss(kind="triplets", findings=NAMES, positions=("left", "right"), size=16, layers=2),
        AuxiliaryLoss(kind="unpaired", findings=NAMES, size=16, weight=0.5),
    ),
}
VARIANTS["contrastive with findings"] = {
    "learning_rate": LearningRates(heads=RATE),
    "lora": Lora(rank=2, targets=("vision.mlp", "text.mlp"), learning_rate=RATE),
    "auxiliary": (AuxiliaryLoss(kind="findings", findings=NAMES, weight=2.0),),
}
# One line is a step: what each pack of each rank holds. 7 shows nothing and is all the text of an unpaired loss. In the
# second step one rank has nothing that could be read.
STEPS = (
    (((0, 1), (2, 7)), ((3,), (4, 5, 6))),
    (((), ()), ((0, 3), (1, 5))),
)


def stage_of(variant: str) -> Stage:
    settings = {"objective": "contrastive", "contrastive": ContrastiveConfig(size=16), **VARIANTS[variant]}
    if settings["objective"] != "contrastive":
        settings["contrastive"] = None
    return Stage(name="s", mixture=(Source(manifest="none"),), steps=len(STEPS), packs_per_step=2, **settings)


def pack_of(processor: MedVLMProcessor, folder: Path, members: tuple[int, ...]) -> PackedBatch:
    """Rows of samples.jsonl; of no members what the loader makes when nothing of a pack could be read."""
    lines = (folder / "samples.jsonl").read_text().splitlines()
    rows = [from_json(json.loads(lines[number]), where=f"line {number}") for number in members]
    renderer = Renderer(processor, folder)
    nothing = [("nothing", [processor.render([{"role": "user", "content": "x"}], [])] * 2)]
    return collate([(row.sample_id, renderer.sides(row)) for row in rows] or nothing, rows)


def train(config: EngineConfig, variant: str, start: Path, folder: Path) -> None:
    """Take the steps; losses and weights lie in ``folder`` afterwards. One process takes the packs of both ranks."""
    stage = stage_of(variant)
    seed_everything(3)
    model, processor = load_checkpoint(start)
    assert isinstance(processor, MedVLMProcessor)
    set_trainable(model, stage)
    groups = parameter_groups(model.named_parameters(), partial(component_of, model), stage.peak_learning_rates(), 0.0)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    engine = make_engine(config, model.train(), groups, micro_batches_per_step=2 * 2 // world)
    objective = make_objective(stage, engine, processor)
    rows = []
    for step in STEPS:
        mine = [step[engine.rank]] if world == 2 else list(step)
        packs = [pack_of(processor, start.parent, members) for rank in mine for members in rank]
        if objective.prepares:
            packs = objective.prepare(engine, packs)
        counts = engine.sum_over_ranks(torch.tensor(items(objective, packs), dtype=torch.float64)).tolist()
        losses = []
        for number, pack in enumerate(packs):
            loss = mean(objective, objective(engine.model, pack), counts)
            engine.backward(loss, last=number == len(packs) - 1)
            losses.append(loss.detach().double())
        total = engine.sum_over_ranks(torch.stack(losses).sum()[None])
        norm = engine.step(scaled_learning_rates(groups, 1.0))
        rows.append({"loss": total.item(), "norm": norm, "counts": counts})
    weights = engine.gather_state_dict(weights="master")
    if weights is not None:
        save_file({name: tensor.contiguous().clone() for name, tensor in weights.items()}, folder / "weights")
        (folder / "rows.json").write_text(json.dumps(rows))
    engine.barrier()
    engine.close()


def main(start: Path, runs: list[dict]) -> None:
    torch.set_num_threads(1)
    for run in runs:
        train(
            EngineConfig(**run["engine"], device="cpu", gradient_clip=0.0), run["variant"], start, Path(run["folder"])
        )
    disconnect()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
