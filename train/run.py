"""Run a curriculum.

python -m medvlm.train.run configs/quickstart.yaml
torchrun --nproc_per_node=8 -m medvlm.train.run configs/quickstart.yaml engine.zero_stage=2
python -m medvlm.train.run configs/quickstart.yaml --stage dpo
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import write_atomic
from medvlm.data_recipes.typed_yaml import BadConfig
from medvlm.model.loading import load_processor, save_checkpoint
from medvlm.train.assemble import first_model
from medvlm.train.config import Curriculum, Stage, dump, fingerprint, load_curriculum
from medvlm.train.distributed import Ranks, StoppedByOther, connect, disconnect
from medvlm.train.randomness import seed_everything
from medvlm.train.run_report import reported
from medvlm.train.stage import run_stage, stage_folder
from medvlm.train.stage_processor import stage_processors
from medvlm.train.states import NotSaved
from medvlm.train.stopping import EXIT_NOT_SAVED, EXIT_STOPPED, Stopped, Stopping
from medvlm.train.survival import packs_per_step
from medvlm.train.trackers import check_trackers

DONE = "done.json"


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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="medvlm train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="YAML of one curriculum")
    parser.add_argument("overrides", nargs="*", help="dotted overrides: stages.align.steps=10 engine.zero_stage=2")
    parser.add_argument("--stage", help="run this stage only; the stages before it must be done")
    options = parser.parse_intermixed_args(arguments)
    # Our own bars and lines say how far it is; a bar per loaded file in each process only hides them.
    disable_progress_bar()
    try:
        curriculum = load_curriculum(options.config, options.overrides)
        if options.stage is not None:
            curriculum.stage(options.stage)
        # The watchdog, which knows who is behind, comes before the time-out, which does not.
        ranks = connect(curriculum.engine.device, timedelta(minutes=2 * curriculum.engine.hang_minutes + 2))
        with Stopping() as stopping:
            checkpoint = run_curriculum(curriculum, ranks, options.stage, stopping)
        if ranks.rank == 0:
            print(f"done: {checkpoint}")
    except Stopped as stopped:
        print(f"medvlm train: {stopped}", file=sys.stderr)
        return EXIT_STOPPED
    except NotSaved as error:
        print(f"medvlm train: {error}", file=sys.stderr)
        return EXIT_NOT_SAVED
    except (
        BadConfig,
        BadSample,
        ValueError,
        FloatingPointError,
        OSError,
        ModuleNotFoundError,
        StoppedByOther,
    ) as error:
        print(f"medvlm train: {error}", file=sys.stderr)
        return 2
    finally:
        disconnect()
    return 0


if __name__ == "__main__":
    sys.exit(main())
