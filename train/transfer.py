"""Packs on their way to the device: on CUDA the next one is copied while the current one computes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from medvlm.model.batch import PackedBatch


def on_device(packs: Sequence[PackedBatch], device: torch.device) -> Generator[PackedBatch, None, None]:
    """Each of ``packs`` on ``device``, in their order.

    On CUDA a thread puts the next pack into page-locked memory and copies it on a stream of its own, so that neither
    waits for the kernels of the current one; the device holds that pack besides. The first pack of a step waits for its
    copy. NOT TESTED: no GPU was at hand. Elsewhere each pack is copied when it is asked for.
    """
    if device.type != "cuda" or not packs:
        for pack in packs:
            yield pack.to(device)
        return
    stream = torch.cuda.Stream(device)
    with ThreadPoolExecutor(1, thread_name_prefix="medvlm-transfer") as thread:
        following = thread.submit(_copy, packs[0], device, stream)
        for number in range(len(packs)):
            placed, copied = following.result()
            if number + 1 < len(packs):
                following = thread.submit(_copy, packs[number + 1], device, stream)
            computes = torch.cuda.current_stream(device)
            computes.wait_event(copied)
            for tensor in _tensors(placed).values():
                # Else its memory would be given to the next copy as soon as Python lets go of it.
                tensor.record_stream(computes)
            yield placed
            del placed


def _copy(pack: PackedBatch, device: torch.device, stream: torch.cuda.Stream) -> tuple[PackedBatch, torch.cuda.Event]:
    """The pack, and what tells that it has arrived. torch keeps page-locked memory until its copy is done."""
    pinned: dict[str, Any] = {name: tensor.pin_memory() for name, tensor in _tensors(pack).items() if tensor.is_cpu}
    with torch.cuda.device(device), torch.cuda.stream(stream):
        placed, arrived = replace(pack, **pinned).to(device), torch.cuda.Event()
        arrived.record(stream)
    return placed, arrived


def _tensors(pack: PackedBatch) -> dict[str, Tensor]:
    found: dict[str, Any] = {field.name: getattr(pack, field.name) for field in fields(pack)}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}
