"""Run a curriculum.

python -m medvlm.train.run configs/quickstart.yaml
torchrun --nproc_per_node=8 -m medvlm.train.run configs/quickstart.yaml engine.zero_stage=2
python -m medvlm.train.run configs/quickstart.yaml --stage dpo
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import timedelta

# Only what reads the configuration: torch and transformers take seconds to import, and most mistakes are told without.
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.typed_yaml import BadConfig
from medvlm.train.early import load_checked
from medvlm.train.stopping import EXIT_NOT_SAVED, EXIT_STOPPED, NotSaved, Stopped, StoppedByOther

TO_JOIN = timedelta(minutes=2)
"""How long a process that cannot begin waits for the others to hear it."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="medvlm train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="YAML of one curriculum")
    parser.add_argument("overrides", nargs="*", help="dotted overrides: stages.align.steps=10 engine.zero_stage=2")
    parser.add_argument("--stage", help="run this stage only; the stages before it must be done")
    options = parser.parse_intermixed_args(arguments)
    try:
        try:
            curriculum = load_checked(options.config, options.overrides, options.stage)
        except (BadConfig, BadSample, OSError) as problem:
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                tell_the_others(problem)
            raise

        from medvlm.train.run_stages import train_curriculum

        train_curriculum(curriculum, options.stage)
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
    return 0


def tell_the_others(problem: Exception) -> None:
    """Files may be missing on one machine only: its processes join the others to say so, or these would wait for them.

    Raises:
        Exception: ``problem``.
    """
    from medvlm.train.distributed import connect, disconnect, raise_together

    try:
        raise_together(problem, connect("auto", TO_JOIN).device)
    finally:
        disconnect()


if __name__ == "__main__":
    sys.exit(main())
