"""What a benchmark ran on, in words."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path

import torch


def hardware(device: torch.device) -> str:
    """The GPU, or the processor with its cores and the threads that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def processor_name() -> str:
    """The model of the processor."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(FileNotFoundError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return name


def held(name: str) -> int:
    """Bytes of this process by Linux' own count: "VmRSS" now, "VmHWM" at most.

    Not ``ru_maxrss``, which a process inherits from whoever started it.

    Raises:
        RuntimeError: not on Linux.
    """
    status = Path("/proc/self/status")
    for line in status.read_text(encoding="ascii").splitlines() if status.is_file() else ():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{status} has no {name}; this benchmark needs Linux")
