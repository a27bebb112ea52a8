"""How close converted encoders are to their libraries: the table of docs/encoders.md.

    python -m medvlm.scripts.bench.encoder_parity --out runs/encoders --write docs/encoders.md

Each encoder gets random weights in its own library (every parameter drawn, see encoder_cases.py), is converted by
``load_encoder``, and both look at the same random picture in fp32: at the native size, and at another size where the
library can take one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from medvlm.data_recipes.manifest import write_atomic
from medvlm.model.grid import GridRule
from medvlm.model.patches import cut, patch_coordinates
from medvlm.model.pretrained import load_encoder
from medvlm.scripts.bench.encoder_cases import Case, Features, Original
from medvlm.scripts.marked_page import write_block

BEGIN, END = "<!-- parity:begin -->", "<!-- parity:end -->"
WITHIN = 1e-4
"""The largest difference that is accepted at the native size."""

_SMALL = {"hidden_size": 384, "num_attention_heads": 6, "num_hidden_layers": 12, "image_size": 224, "patch_size": 16}
CASES = (
    Case(label="ViT", library="timm", architecture="vit_tiny_patch16_224"),
    Case(label="DeiT III", library="timm", architecture="deit3_small_patch16_224"),
    Case(label="CLIP", library="timm", architecture="vit_base_patch32_clip_quickgelu_224", arguments={"depth": 6}),
    Case(label="SigLIP", library="timm", architecture="vit_base_patch16_siglip_224", arguments={"depth": 6}),
    Case(label="SigLIP 2", library="timm", architecture="vit_base_patch32_siglip_256", arguments={"depth": 6}),
    Case(label="DINOv2", library="timm", architecture="vit_small_patch14_dinov2", arguments={"img_size": 224}),
    Case(
        label="DINOv2, registers", library="timm", architecture="vit_small_patch14_reg4_dinov2",
        arguments={"img_size": 224},
    ),
    Case(
        label="DINOv2, SwiGLU", library="timm", architecture="vit_giant_patch14_reg4_dinov2",
        arguments={"img_size": 112, "embed_dim": 192, "num_heads": 3, "depth": 6},
    ),
    Case(label="DINOv3", library="timm", architecture="vit_small_patch16_dinov3"),
    Case(label="DINOv3, SwiGLU", library="timm", architecture="vit_small_plus_patch16_dinov3"),
    Case(label="EVA", library="timm", architecture="eva_large_patch14_196", arguments={"depth": 3}),
    Case(
        label="EVA giant", library="timm", architecture="eva_giant_patch14_224",
        arguments={"embed_dim": 192, "num_heads": 3, "depth": 6},
    ),
    Case(label="EVA-02", library="timm", architecture="eva02_tiny_patch14_224"),
    Case(label="EVA-02 CLIP", library="timm", architecture="eva02_base_patch16_clip_224", arguments={"depth": 6}),
    Case(label="Perception Encoder", library="timm", architecture="vit_pe_core_tiny_patch16_384"),
    Case(
        label="NaFlex, SigLIP 2", library="timm", architecture="naflexvit_base_patch16_siglip",
        arguments={"depth": 6},
    ),
    Case(label="NaFlex", library="timm", architecture="naflexvit_base_patch16_gap", arguments={"depth": 6}),
    Case(label="CLIP", library="open_clip", architecture="ViT-B-32-quickgelu", arguments={"layers": 6}),
    Case(label="CLIP", library="open_clip", architecture="ViT-S-16"),
    Case(
        label="BiomedCLIP", library="open_clip", architecture="local-dir",
        arguments={
            "timm_model_name": "vit_base_patch16_224", "timm_pool": "", "timm_proj": "linear", "image_size": 224,
        },
    ),
    Case(
        label="SigLIP", library="open_clip", architecture="local-dir",
        arguments={
            "timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "map", "timm_proj": "none",
            "image_size": 224,
        },
    ),
    Case(label="SigLIP", library="transformers", architecture="SiglipVisionConfig", arguments=_SMALL),
    Case(
        label="SigLIP 2 (NaFlex)", library="transformers", architecture="Siglip2VisionConfig",
        arguments={key: value for key, value in _SMALL.items() if key != "image_size"} | {"num_patches": 256},
    ),
    Case(label="CLIP", library="transformers", architecture="CLIPVisionConfig", arguments=_SMALL),
    Case(label="DINOv2", library="transformers", architecture="Dinov2Config", arguments=_SMALL | {"patch_size": 14}),
    Case(
        label="DINOv2, registers", library="transformers", architecture="Dinov2WithRegistersConfig",
        arguments=_SMALL | {"patch_size": 14, "use_swiglu_ffn": True},
    ),
    Case(
        label="DINOv3", library="transformers", architecture="DINOv3ViTConfig",
        arguments=_SMALL | {"num_register_tokens": 4, "intermediate_size": 1536},
    ),
)  # fmt: skip
SLICES = (
    Case(label="ResNet", library="timm", architecture="resnet18", slices=True),
    Case(label="ConvNeXt", library="timm", architecture="convnext_atto", slices=True),
    Case(label="EfficientNet", library="timm", architecture="efficientnet_b0", slices=True),
    Case(
        label="Swin", library="timm", architecture="swin_tiny_patch4_window7_224",
        arguments={"strict_img_size": False}, slices=True,
    ),
    Case(
        label="ConvNeXt", library="open_clip", architecture="local-dir", slices=True,
        arguments={"timm_model_name": "convnext_atto", "timm_pool": "", "timm_proj": "linear", "image_size": 224},
    ),
    Case(
        label="ResNet", library="transformers", architecture="ResNetConfig", slices=True,
        arguments={"embedding_size": 32, "hidden_sizes": [32, 64, 96, 128], "depths": [1, 1, 2, 1]},
    ),
    Case(
        label="ConvNeXt", library="transformers", architecture="ConvNextConfig", slices=True,
        arguments={"hidden_sizes": [32, 64, 96, 128], "depths": [1, 1, 2, 1]},
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Between converted and original features at one size.

    Attributes:
        size: (H, W) of the picture.
        largest: the largest absolute difference.
        spread: standard deviation of the original features, to judge it by.
    """

    size: tuple[int, int]
    largest: float
    spread: float


def encode(encoder: Any, pixels: Tensor) -> Tensor:
    """Features of a picture (3, H, W) or volume (3, D, H, W) in [0, 1]: (slabs * rows * cols, hidden), raster order.

    A picture stands for as many equal slices as a patch holds, as in the processor.
    """
    patch = tuple(encoder.config.patch_size)
    if pixels.ndim == 3:
        pixels = pixels[:, None].expand(-1, patch[0], -1, -1)
    cells = [size // p for size, p in zip(pixels.shape[1:], patch, strict=True)]
    merge = (1, *(2 if size % 2 == 0 else 1 for size in cells[1:]))
    limits = dict.fromkeys(("image", "volume", "video"), 10**9)
    rule = GridRule(patch=patch, merge=merge, max_patches=limits, max_depth=limits)  # type: ignore[arg-type]
    grid = rule.grid(tuple(pixels.shape[1:]))  # type: ignore[arg-type]
    patches = torch.from_numpy(cut(pixels.numpy() * np.float32(2) - np.float32(1), rule))
    features = encoder(
        patches, torch.tensor([grid]), torch.full((1, 3), torch.nan), torch.zeros(1, dtype=torch.int64), list(merge)
    )
    places = np.ravel_multi_index(tuple(patch_coordinates(grid, merge).T), grid)  # type: ignore[arg-type]
    return features[torch.from_numpy(np.argsort(places))]


def difference(encoder: Any, features: Features, size: tuple[int, int]) -> Difference:
    """Show both one random picture of ``size``."""
    pixels = torch.rand(3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = encode(encoder, pixels), features(pixels)
    if ours.shape != theirs.shape:
        raise ValueError(f"{tuple(ours.shape)} features, the library has {tuple(theirs.shape)}")
    return Difference(size=size, largest=float((ours - theirs).abs().max()), spread=float(theirs.std()))


def other_size(original: Original, patch: int) -> tuple[int, int]:
    """A size that is neither native nor square: fewer rows and more columns."""
    rows, cols = (side // patch for side in original.size)
    return (max(2, rows * 3 // 4) * patch, (cols + max(1, cols // 4)) * patch)


def compare(case: Case, folder: Path) -> tuple[Original, Difference, Difference | None]:
    """Make, convert and compare at the native size and, where the library can, at another."""
    original = case.make(folder)
    encoder = load_encoder(original.name, **original.arguments)
    native = difference(encoder, original.features, original.size)
    if original.anywhere is None:
        return original, native, None
    size = other_size(original, encoder.config.patch_size[1])
    return original, native, difference(encoder, original.anywhere, size)


def measure(cases: tuple[Case, ...], console: Console) -> list[dict[str, Any]]:
    """One row per case."""
    rows = []
    for case in track(cases, description="encoders", console=console, disable=not console.is_terminal):
        with tempfile.TemporaryDirectory() as folder:
            original, native, other = compare(case, Path(folder))
        name = case.arguments.get("timm_model_name", case.architecture)
        changed = {key: case.arguments[key] for key in ("depth", "layers", "embed_dim") if key in case.arguments}
        rows.append(
            {
                "label": case.label, "library": case.library, "architecture": name, "changed": changed,
                "class": original.kind, "compared": original.compared, "native": vars(native),
                "other": None if other is None else vars(other),
            }
        )  # fmt: skip
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| encoder | library | architecture | class | features | size | largest difference | spread | "
        "another size | largest difference |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        changed = ", ".join(f"{key} {value}" for key, value in row["changed"].items())
        native, other = row["native"], row["other"]
        second = ("one size only", "")
        if other is not None:
            second = ("x".join(map(str, other["size"])), f"{other['largest']:.1e}")
        cells = [
            row["label"], row["library"], f"`{row['architecture']}`" + (f" ({changed})" if changed else ""),
            row["class"], row["compared"], "x".join(map(str, native["size"])), f"{native['largest']:.1e}",
            f"{native['spread']:.2f}",
            *second,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of encoder_parity.json and .md")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the tables in this page")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    console = Console(stderr=True)
    converted, slices = measure(CASES, console), measure(SLICES, console)
    packages = ("torch", "timm", "open_clip_torch", "transformers")
    versions = {name: version(name) for name in packages}
    date = datetime.now(UTC).date().isoformat()
    used = ", ".join(f"{name} {number}" for name, number in versions.items())
    text = (
        f"Measured on {date} on a CPU in fp32, {used}.\n\nConverted into the packed encoder:\n\n{table(converted)}\n\n"
        f"Run as they are on slices:\n\n{table(slices)}"
    )
    report = {
        "date": date, "hardware": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": versions, "converted": converted, "slices": slices,
    }  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomic(options.out / "encoder_parity.json", json.dumps(report, indent=1))
    write_atomic(options.out / "encoder_parity.md", text + "\n")
    if options.write is not None:
        write_block(options.write, BEGIN, END, text)
    print(text)
    worst = max(row["native"]["largest"] for row in converted + slices)
    if worst > WITHIN:
        print(f"the largest difference at a native size is {worst:.1e}, above {WITHIN:.0e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
