"""All stages of a curriculum in turn: those that are done are passed over, the others resumed where they stopped."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from medvlm.data_recipes.manifest import write_atomic
from medvlm.model.loading import load_processor, save_checkpoint
from medvlm.train.assemble import first_model
from medvlm.train.config import Curriculum, Stage, dump, fingerprint
from medvlm.train.distributed import Ranks, connect, disconnect, raise_together, sum_over_ranks
from medvlm.train.randomness import seed_everything
from medvlm.train.run_report import reported
from medvlm.train.stage import run_stage, stage_folder
from medvlm.train.stage_processor import stage_processors
from medvlm.train.stopping import Stopped, Stopping
from medvlm.train.survival import packs_per_step
from medvlm.train.trackers import check_trackers

DONE = "done.json"


def train_curriculum(curriculum: Curriculum, only: str | None = None) -> None:
    """What ``medvlm train`` does once its configuration is checked: join the other processes, train, leave them."""
    # Our own bars and lines say how far it is; a bar per loaded file in each process only hides them.
    disable_progress_bar()
    try:
        # The watchdog, which knows who is behind, comes before the time-out, which does not.
        ranks = connect(curriculum.engine.device, timedelta(minutes=2 * curriculum.engine.hang_minutes + 2))
        raise_together(None, ranks.device)  # here one hears of a process whose files are not there: see run.py
        with Stopping() as stopping:
            checkpoint = run_curriculum(curriculum, ranks, only, stopping)
        if ranks.rank == 0:
            print(f"done: {checkpoint}")
    finally:
        disconnect()


def run_curriculum(
    curriculum: Curriculum, ranks: Ranks, only: str | None = None, stopping: Stopping | None = None
) -> Path:
    """Run all stages that are not done, or ``only`` one; each starts from the checkpoint before it.

    Args:
        stopping: what listens for signals; None: nothing does.

    Returns:
        The last checkpoint.

    Raises:
        ValueError: ``only`` names a stage whose predecessor has no checkpoint yet.
    """
    output = Path(curriculum.output_dir)
    check_trackers(curriculum.tracking)
    if ranks.rank == 0:
        output.mkdir(parents=True, exist_ok=True)
        write_atomic(output / "curriculum.yaml", dump(curriculum))
    checkpoint = start_checkpoint(curriculum, ranks)
    if any(stage.processor for stage in curriculum.stages):
        # A setting that a late stage gets wrong is said before the first one trains.
        stage_processors(load_processor(checkpoint), curriculum.stages)
    for stage in curriculum.stages:
        folder = stage_folder(curriculum, stage.name)
        done = folder / DONE
        wanted = only in (None, stage.name)
        if done.is_file():
            if wanted and not _same(json.loads(done.read_text(encoding="utf-8")), curriculum, stage, ranks.world_size):
                raise ValueError(
                    f"stage {stage.name!r} in {folder} was trained with another configuration; choose another "
                    "output_dir, or remove that folder to train it again"
                )
        elif wanted:
            _stop_before(stage, stopping, ranks)
            began = time.perf_counter()
            if not (checkpoint / "config.json").is_file():
                raise ValueError(
                    f"stage {stage.name!r} starts from {checkpoint}, which is not there; run the stages before it"
                )
            with reported(output, ranks.rank):
                result = run_stage(curriculum, stage, checkpoint, ranks, stopping or Stopping())
                if ranks.rank == 0:
                    record = {
                        "stage": stage.name,
                        "fingerprint": fingerprint(curriculum, stage.name),
                        "steps": result.steps,
                        "trained": result.trained,
                        "quarantined": result.quarantined,
                        "minutes": round((time.perf_counter() - began) / 60, 2),
                        "world_size": ranks.world_size,
                        "packs_per_step": packs_per_step(curriculum, stage),
                    }
                    write_atomic(done, json.dumps(record, indent=1) + "\n")
        checkpoint = folder / "checkpoint"
        if only == stage.name:
            break
    return checkpoint


def _stop_before(stage: Stage, stopping: Stopping | None, ranks: Ranks) -> None:
    """A signal that came after the last look of the stage before ends here; all ranks must call it.

    Raises:
        Stopped: on all ranks.
    """
    asked = None if stopping is None else stopping.asked
    if sum_over_ranks(torch.tensor([float(asked is not None)], dtype=torch.float64), ranks.device).item():
        raise Stopped(
            f"stopped by {asked or 'a signal to another rank'} before stage {stage.name!r}: the same command goes on "
            "from there"
        )


def _same(record: dict[str, Any], curriculum: Curriculum, stage: Stage, world_size: int) -> bool:
    """Whether a finished stage was trained as it would be now; processes times packs per step is what counts."""
    had = record.get("packs_per_step", {})
    then, now = had.get(stage.name, stage.packs_per_step), stage.packs_per_step
    if then != now and then * record["world_size"] != now * world_size:
        return False
    return bool(record["fingerprint"] == fingerprint(curriculum, stage.name, had))


def start_checkpoint(curriculum: Curriculum, ranks: Ranks) -> Path:
    """The checkpoint that the first stage starts from; rank 0 makes it once, the others wait."""
    import torch.distributed as dist

    folder = Path(curriculum.output_dir) / "stages" / "00-start" / "checkpoint"
    if ranks.rank == 0 and not (folder / "config.json").is_file():
        seed_everything(curriculum.seed)
        folder.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(folder, *first_model(curriculum))
    dist.barrier()
    return folder
