"""Start processes of a test and end all of them, also when the test fails or takes too long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

FULL = "MEDVLM_FULL" in os.environ
"""Every combination of engines and losses on two processes, where otherwise some stand for all: MEDVLM_FULL=1 asks for
it."""


def launch_environment() -> dict[str, str]:
    """The environment of a fresh training: no rank of another launcher, one thread."""
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "OMP_NUM_THREADS": "1"}


def run_group(command: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Run ``command``; at the timeout its children end with it (killing torchrun alone leaves its workers)."""
    process = subprocess.Popen(
        command, env=launch_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        out, error = process.communicate(timeout=timeout)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return subprocess.CompletedProcess(command, process.returncode, out, error)


def torchrun(script: Path, arguments: list[str], timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """Run ``script`` on two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv-backend=c10d"]
    return run_group([*command, "--rdzv-endpoint=localhost:0", str(script), *arguments], timeout)
