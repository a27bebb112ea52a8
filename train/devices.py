"""What an accelerator can do at most: published figures by name, or a matrix product that is measured here."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from medvlm.data_recipes.manifest import write_atomic

GIB = 2**30
USABLE = 0.95
"""Of the memory that a card is sold with, which is counted in GiB: some goes to error correction and the driver."""
PEAK_FILE = "peak.json"


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """Published figures of one accelerator.

    Attributes:
        name: as it is given to ``medvlm plan --gpu``.
        pattern: regular expression for what the driver calls it; the first of the table that matches counts.
        bf16_flops: dense bf16 multiply-adds with fp32 sums, in floating-point operations a second. Vendors often print
            twice as much, for matrices of which half is zero.
        memory_bytes: of the card, that a process can have.
        bandwidth: of that memory, bytes a second.
        source: where the figures stand.
    """

    name: str
    pattern: str
    bf16_flops: float
    memory_bytes: float
    bandwidth: float
    source: str


def _card(
    name: str, pattern: str, teraflops: float, gigabytes: float, terabytes_per_s: float, source: str
) -> Accelerator:
    return Accelerator(
        name=name, pattern=pattern, bf16_flops=teraflops * 1e12, memory_bytes=gigabytes * GIB * USABLE,
        bandwidth=terabytes_per_s * 1e12, source=source,
    )  # fmt: skip


ACCELERATORS: tuple[Accelerator, ...] = (
    _card("b200-180gb", r"\bB200\b", 2250, 180, 7.7, "NVIDIA HGX B200 sheet, half of sparse"),
    _card("h200-141gb", r"\bH200(?! NVL)\b", 989.4, 141, 4.8, "NVIDIA H200 sheet (SXM), half of sparse"),
    _card("h200-nvl-141gb", r"\bH200 NVL\b", 835.5, 141, 4.8, "NVIDIA H200 sheet (NVL), half of sparse"),
    _card("h100-nvl-94gb", r"\bH100 NVL\b", 835.5, 94, 3.9, "NVIDIA H100 NVL sheet, half of sparse"),
    _card("h100-pcie-80gb", r"\bH100 PCIe\b", 756.5, 80, 2.0, "NVIDIA H100 PCIe sheet, half of sparse"),
    _card("h100-80gb", r"\bH[18]00\b.*(HBM3|SXM)", 989.4, 80, 3.35, "NVIDIA H100 sheet (SXM), half of sparse"),
    _card("h20-96gb", r"\bH20\b", 148, 96, 4.0, "NVIDIA H20 sheet"),
    _card("a100-80gb", r"\bA[18]00\b.*80GB", 312, 80, 2.039, "NVIDIA A100 80GB sheet (SXM; PCIe: 1.935 TB/s)"),
    _card("a100-40gb", r"\bA100\b.*40GB", 312, 40, 1.555, "NVIDIA A100 40GB sheet"),
    _card("l40s-48gb", r"\bL40S\b", 362.05, 48, 0.864, "NVIDIA L40S sheet"),
    _card("l40-48gb", r"\bL40\b", 181.05, 48, 0.864, "NVIDIA L40 sheet"),
    _card("l4-24gb", r"\bL4\b", 121, 24, 0.3, "NVIDIA L4 sheet, half of sparse"),
    _card("a40-48gb", r"\bA40\b", 149.7, 48, 0.696, "NVIDIA A40 sheet"),
    _card("a30-24gb", r"\bA30\b", 165, 24, 0.933, "NVIDIA A30 sheet"),
    _card("a10g-24gb", r"\bA10G\b", 70, 24, 0.6, "AWS G5 instances"),
    _card("a10-24gb", r"\bA10\b", 125, 24, 0.6, "NVIDIA A10 sheet"),
    _card("rtx-6000-ada-48gb", r"RTX 6000 Ada", 364.2, 48, 0.96, "NVIDIA RTX 6000 Ada sheet, from its FP8 figure"),
    _card("rtx-a6000-48gb", r"RTX A6000", 154.8, 48, 0.768, "NVIDIA GA102 white paper"),
    _card("rtx-5090-32gb", r"RTX 5090", 209.5, 32, 1.792, "NVIDIA RTX Blackwell white paper, fp32 sums"),
    _card("rtx-4090-24gb", r"RTX 4090", 165.2, 24, 1.008, "NVIDIA Ada white paper, fp32 sums"),
    _card("rtx-3090-24gb", r"RTX 3090", 71, 24, 0.936, "NVIDIA GA102 white paper, fp32 sums"),
    _card("mi300x-192gb", r"MI300X", 1307.4, 192, 5.3, "AMD Instinct MI300X sheet"),
    _card("mi250x-128gb", r"MI250X", 383, 128, 3.2, "AMD Instinct MI250X sheet; one card of two dies"),
)  # fmt: skip
"""From memory of the vendors' data sheets; a wrong figure moves MFU and the hours of a plan, never a weight."""


def named(name: str) -> Accelerator:
    """The accelerator called ``name``; a beginning such as "h100" is enough.

    Raises:
        ValueError: there is none; lists those there are.
    """
    wanted = name.lower().replace("_", "-").replace(" ", "-")
    exact = [card for card in ACCELERATORS if card.name == wanted]
    alike = exact or [card for card in ACCELERATORS if card.name.startswith(f"{wanted}-")]
    if wanted == "h100" or wanted == "h200":
        alike = [card for card in alike if re.fullmatch(rf"{wanted}-\d+gb", card.name)]
    if len(alike) != 1:
        names = ", ".join(card.name for card in alike or ACCELERATORS)
        reason = "could be several" if alike else "is unknown"
        raise ValueError(f"the GPU {name!r} {reason}; use one of {names}")
    return alike[0]


def called(driver_name: str) -> Accelerator | None:
    """The accelerator that the driver calls ``driver_name``; None when it is unknown, a part of a card (MIG), or in a
    laptop, where the same name stands for less."""
    if "MIG" in driver_name or "Laptop" in driver_name:
        return None
    return next((card for card in ACCELERATORS if re.search(card.pattern, driver_name)), None)


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The most that one process could compute: what MFU is a share of.

    Attributes:
        flops: floating-point operations a second.
        source: published for which card, or measured on what.
    """

    flops: float
    source: str

    def __str__(self) -> str:
        return f"{self.flops / 1e12:,.3g} TFLOP/s: {self.source}"


def peak_of(device: torch.device, dtype: torch.dtype, folder: Path | None = None) -> Peak:
    """The published bf16 peak of the GPU of this process, or the best of some matrix products that are timed here.

    A measured peak is kept in ``folder``/peak.json, so that a resumed training compares with the same number.

    Args:
        dtype: of a measured product. A published peak is that of bf16 also for a training in fp32.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        card = called(name)
        if card is not None:
            return Peak(flops=card.bf16_flops, source=f"published bf16 peak of {card.name} ({card.source})")
        dtype = torch.bfloat16
    else:
        name = f"CPU, {torch.get_num_threads()} threads"
    key = f"{name}, {str(dtype).removeprefix('torch.')}"
    path = None if folder is None else folder / PEAK_FILE
    known: dict[str, dict[str, object]] = {}
    if path is not None and path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        if key in known:
            return Peak(**known[key])  # type: ignore[arg-type]
    peak = Peak(flops=measured_peak(device, dtype), source=f"measured matrix product, {key}")
    if path is not None:
        write_atomic(path, json.dumps({**known, key: asdict(peak)}, indent=1) + "\n")
    return peak


def measured_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.15) -> float:
    """Floating-point operations a second of the fastest square matrix product within about ``seconds``."""
    size = 8192 if device.type == "cuda" else 512
    # No random numbers: the state of the generators belongs to the training.
    left = torch.full((size, size), 0.5, dtype=dtype, device=device)
    right = torch.full((size, size), 0.25, dtype=dtype, device=device)
    best, until = 0.0, None
    with torch.no_grad():
        while until is None or time.perf_counter() < until:
            _wait(device)
            began = time.perf_counter()
            left @ right
            _wait(device)
            took = time.perf_counter() - began
            if until is None:  # the first product warms up
                until = time.perf_counter() + seconds
                took = max(took, 1e-9)
            best = max(best, 2 * size**3 / took)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
