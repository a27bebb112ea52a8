"""The random state of one process: set from a seed, taken, and put back for an exact resume."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int, rank: int = 0) -> None:
    """Seed Python, numpy and torch (all devices); ranks get streams of their own, or all would drop the same units.

    Weights that must be equal on all ranks are to be made with ``rank=0``.
    """
    mixed = int(np.random.SeedSequence([seed, rank]).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)


def random_state() -> dict[str, Any]:
    """States of Python's, numpy's and torch's generators: tensors and plain numbers only, so that loading needs
    no unpickling of code."""
    numpy_state: Any = np.random.get_state(legacy=True)
    kind, keys, position, has_gauss, gauss = numpy_state
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (str(kind), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def device_state() -> tuple[torch.Tensor, torch.Tensor | None]:
    """State of torch's generators of the host and of this process's device: what dropout draws from."""
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def restore_device_state(state: tuple[torch.Tensor, torch.Tensor | None]) -> None:
    """Put back what ``device_state`` took."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])


def restore_random_state(state: dict[str, Any]) -> None:
    """Put back what ``random_state`` took.

    Raises:
        ValueError: the state was taken on another kind of device.
    """
    if ("cuda" in state) != torch.cuda.is_available():
        raise ValueError("the random state was saved on another kind of device; resume on the kind it was saved on")
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, numpy_gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, numpy_gauss))
    torch.set_rng_state(state["torch"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
