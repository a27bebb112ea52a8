"""Run by torchrun from test_parity.py: the real loop trains the real model on packs that are laid out by hand."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from medvlm.data_recipes.lengths import Lengths
from medvlm.data_recipes.loader import Loader
from medvlm.data_recipes.mixture import Mixture
from medvlm.data_recipes.pack_plan import PackPlan, Position
from medvlm.data_recipes.rendering import Renderer
from medvlm.data_recipes.rows import Joined, ListRows
from medvlm.data_recipes.sample import Preference, Sample, Turn, VisualRef
from medvlm.model import chunked_loss
from medvlm.model.loading import load_checkpoint
from medvlm.model.medvlm import MedVLMForConditionalGeneration
from medvlm.train.assemble import component_of, set_trainable
from medvlm.train.config import (
    Curriculum,
    DataConfig,
    EngineConfig,
    LearningRates,
    Lora,
    ModelSource,
    PreferenceConfig,
    Source,
    Stage,
)
from medvlm.train.distributed import disconnect
from medvlm.train.engine import make_engine
from medvlm.train.loop import train
from medvlm.train.monitor import Monitor
from medvlm.train.objectives.choice import make_objective
from medvlm.train.optim import parameter_groups
from medvlm.train.randomness import seed_everything
from medvlm.train.sequence_parallel import PartOfPack, sequence_group, share_packs
from medvlm.train.stopping import Stopping
from medvlm.train.survival import Survival

STEPS, RANKS, PACKS = 6, 2, 2
chunked_loss.FEWEST_ROWS = 5  # losses are then made in parts, of which ranks have different numbers
IMAGE = VisualRef(kind="image", path="a.png")
OTHER = VisualRef(kind="image", path="b.png")
VOLUME = VisualRef(
    kind="volume", path="c.npy", options={"unit": "HU", "spacing_mm": [8, 5, 5], "orientation": "SPL", "modality": "CT"}
)
WIDE = Lora(rank=4, alpha=16, targets=("vision.mlp", "text.attention", "text.mlp"), learning_rate=3e-3)
NARROW = Lora(rank=4, alpha=16, targets=("text.attention", "text.mlp"), learning_rate=3e-3)
RATE = 1e-3
VARIANTS = {
    "all": {"learning_rate": LearningRates(vision=RATE, projector=RATE, text=RATE)},
    "vision frozen": {"learning_rate": LearningRates(projector=RATE, text=RATE)},
    "lora": {"learning_rate": LearningRates(projector=RATE), "lora": WIDE},
    "preference": {"objective": "preference", "lora": NARROW, "preference": PreferenceConfig(supervised_weight=0.2)},
    "preference over the step": {
        "objective": "preference",
        "lora": NARROW,
        "preference": PreferenceConfig(loss={"kto": 1.0, "bco": 1.0}, beta=0.5, supervised_weight=0.2),
    },
}


class LaidOut(PackPlan):
    """A plan whose packs are given: ``LAID[n]`` is pack n of the endless sequence."""

    def packs(
        self, start: Position, stop: threading.Event | None = None
    ) -> Generator[tuple[Position, list[int]], None, None]:
        for number in range(start.packs, STEPS * RANKS * PACKS):
            yield Position(packs=number + 1), list(LAID[number % len(LAID)])


def a_sample(name: str, visuals: list[VisualRef], question: str, answer: str) -> Sample:
    turns = (Turn(role="user", content=(*visuals, question)), Turn(role="assistant", content=(answer,)))
    return Sample(
        sample_id=name, patient_id="p", study_id="s", source="fixture", licence="CC0-1.0", split="train", turns=turns
    )


def samples_of(variant: str) -> list[Sample]:
    """0, 1: text only; 2, 3: an image; 4, 5: a volume; answers differ in length, so that a mean of means would show."""
    rows = [
        a_sample("text-0", [], "Is there a pleural effusion?", "no"),
        a_sample("text-1", [], "Is there a mass?", "There is a 25 mm mass in the left upper zone."),
        a_sample("image-0", [IMAGE], "Is there a nodule?", "yes"),
        a_sample("image-1", [OTHER], "Which zone?", "right lower zone, and no pneumothorax"),
        a_sample("volume-0", [VOLUME], "On which side is the mass?", "left"),
        a_sample("volume-1", [VOLUME, IMAGE], "Is the heart normal in size?", "The heart is normal in size."),
    ]
    if "preference" not in variant:
        return rows
    pairs = []
    for row in rows:
        chosen, wrong = row.turns[-1:], Turn(role="assistant", content=("moderate effusion in the lower zone",))
        # A rejected side may be a whole conversation, with other images.
        question = Turn(role="user", content=(OTHER, "Which zone?"))
        rejected = (question, wrong) if row.sample_id == "image-0" else (wrong,)
        preference = Preference(chosen=chosen, rejected=rejected, made_by="test")
        pairs.append(Sample(**{**row.__dict__, "turns": row.turns[:-1], "preference": preference}))
    return pairs


# One line is a step: packs go to rank 0, 1, 0, 1. In the first step rank 0 has only text and rank 1 only visuals, and
# in the second it is the other way round; the third is text on all ranks.
LAID = (
    (0,), (4, 2), (1, 0), (5,),
    (3, 5), (1,), (2,), (0, 1),
    (0,), (1,), (1, 0), (0,),
    (2, 0), (4, 1), (3,), (5, 4),
)  # fmt: skip


def train_once(config: EngineConfig, variant: str, start: Path, folder: Path, packs_per_step: int) -> None:
    """Train STEPS steps by the loop of train.stage; metrics.jsonl and the weights lie in ``folder`` afterwards."""
    packs_per_step *= config.sequence_parallel  # processes that share a pack take as many steps over as many packs
    stage = Stage(
        name="parity", mixture=(Source(manifest="none"),), steps=STEPS, warmup_steps=1, packs_per_step=packs_per_step,
        **VARIANTS[variant],  # type: ignore[arg-type]
    )  # fmt: skip
    seed_everything(3)
    model, processor = load_checkpoint(start)
    set_trainable(model, stage)
    renderer = Renderer(processor, start.parent)
    rows = Joined([ListRows(samples_of(variant))])
    plan = LaidOut(
        mixture=Mixture(sizes=(len(rows),), weights=(1.0,), seed=0),
        lengths=Lengths(rows, renderer.length),
        tokens_per_pack=4096,
        patches_per_pack=4096,
    )
    groups = parameter_groups(model.named_parameters(), partial(component_of, model), stage.peak_learning_rates(), 0.1)
    engine = make_engine(config, model.train(), groups, micro_batches_per_step=packs_per_step)
    curriculum = Curriculum(
        name="parity", output_dir=str(folder), model=ModelSource(pretrained=str(start)), data=DataConfig(root="none"),
        stages=(stage,), engine=config,
    )  # fmt: skip
    survival = Survival(
        curriculum, stage, folder=folder, steps=STEPS, data="", rank=engine.rank, world_size=engine.world_size,
        stopping=Stopping(),
    )  # fmt: skip
    shares, objective = config.sequence_parallel, make_objective(stage, engine, processor)
    sequence = sequence_group(shares, engine.rank, engine.world_size)
    if sequence is not None:
        share_packs(model, sequence)
        objective = PartOfPack(objective, sequence)
    loader = Loader(
        rows, plan, renderer, packs_per_step=packs_per_step, rank=engine.rank // shares,
        world_size=engine.world_size // shares,
    )  # fmt: skip
    with Monitor(folder, stage.name, STEPS, rank=engine.rank, bar=False) as monitor, survival:
        train(engine, groups, stage, loader, survival, monitor, objective, start=0, total=STEPS)
    weights = engine.gather_state_dict(weights="master")
    if weights is not None:
        save_file({name: tensor.contiguous().clone() for name, tensor in weights.items()}, folder / "weights")
    engine.barrier()
    engine.close()


def without_blank_visual() -> None:
    """Take the anchor out: a pack of text then runs the decoder alone."""
    embed = MedVLMForConditionalGeneration._embed

    def plain(model: Any, input_ids: torch.Tensor, visual_inputs: tuple) -> torch.Tensor:
        if visual_inputs[1] is None or len(visual_inputs[1]) == 0:
            return model.get_input_embeddings()(input_ids)
        return embed(model, input_ids, visual_inputs)

    MedVLMForConditionalGeneration._embed = plain  # type: ignore[method-assign]


def main(start: Path, runs: list[dict]) -> None:
    torch.set_num_threads(1)
    for run in runs:
        if run.get("without_blank_visual"):
            without_blank_visual()
        config = EngineConfig(**run["engine"], device="cpu", gradient_clip=0.5)
        train_once(config, run["variant"], start, Path(run["folder"]), PACKS)
    disconnect()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
