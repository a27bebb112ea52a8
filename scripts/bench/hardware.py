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
    name = platform.processor() or platform.machine()
    with contextlib.suppress(FileNotFoundError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
