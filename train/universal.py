"""States of DeepSpeed for another number of processes: through its universal checkpoint, made once beside the state."""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from medvlm.train.checkpoint import CONVERTED, write_folder
from medvlm.train.distributed import raise_together


def load_universal(
    engine: Any, state: Path, *, rank: int, barrier: Callable[[], None], device: torch.device
) -> str | None:
    """Load into ``engine``, DeepSpeed's, what other processes saved in ``state``; all ranks must call it.

    Returns:
        What DeepSpeed says that it has loaded; None: nothing.
    """
    converted = state.parent.with_name(state.parent.name + CONVERTED)
    problem: Exception | None = None
    if rank == 0 and not converted.is_dir():
        print(f"{state.parent} is rewritten for another number of processes", file=sys.stderr, flush=True)
        try:
            write_folder(converted, lambda folder: _convert(state, folder / state.name))
        except Exception as error:  # noqa: BLE001 (raised by all ranks together)
            problem = error
    raise_together(problem, device)
    barrier()
    config, optimizer = engine._config, engine.optimizer.optimizer
    settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    config.load_universal_checkpoint = True
    try:
        path, _ = engine.load_checkpoint(str(converted), tag=state.name, load_module_strict=False)
    finally:
        config.load_universal_checkpoint = False
    # Under ZeRO-3 DeepSpeed 0.19 gives all groups the settings of the first (weight decay, betas), and one and the same
    # tensor as their count of steps, which each of them then counts up.
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
    for held in optimizer.state.values():
        if isinstance(held.get("step"), torch.Tensor):
            held["step"] = held["step"].clone()
    loaded: str | None = path
    return loaded


def _convert(state: Path, target: Path) -> None:
    """DeepSpeed's own converter; ``python -m deepspeed.checkpoint.ds_to_universal`` does the same."""
    from deepspeed.checkpoint import ds_to_universal

    options = argparse.Namespace(
        input_folder=str(state), output_folder=str(target), num_extract_workers=1, num_merge_workers=1,
        # The note that ZeRO 1 and 2 lack says which tensors are parallel over ranks: none are.
        keep_temp_folder=False, strict=True, inject_missing_state=True,
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ds_to_universal.main(options)
    temporary = target / "tmp"
    if temporary.is_dir():
        shutil.rmtree(temporary)
