"""The table of docs/scale.md: what fits which GPUs, from ``medvlm plan``'s estimate of memory.

    python -m medvlm.scripts.hardware_ladder                          # prints it
    python -m medvlm.scripts.hardware_ladder --write docs/scale.md

Models are shapes only; nothing is loaded or downloaded. For each model and way to train it, the first settings of
LADDER under which the longest pack of TOKENS fits, and its memory.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medvlm.model.loading import Model, build_config
from medvlm.scripts.marked_page import write_block
from medvlm.train.config import Curriculum, DataConfig, LearningRates, Lora, ModelSource, Source, Stage
from medvlm.train.devices import Accelerator, named
from medvlm.train.plan_memory import Memory, estimate_memory
from medvlm.train.plan_stage import shaped
from medvlm.train.settings.engine import EngineConfig

BEGIN, END = "<!-- ladder:begin -->", "<!-- ladder:end -->"
VOCABULARY = 151936
VISION = {
    "hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16, "intermediate_size": 4304,
    "patch_size": [1, 14, 14],
}  # fmt: skip
"""SigLIP-so400m by its sizes."""


def _text(hidden: int, layers: int, heads: int, intermediate: int, *, tied: bool) -> dict[str, Any]:
    return {
        "model_type": "qwen3", "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": intermediate, "tie_word_embeddings": tied,
        "max_position_embeddings": 40960,
    }  # fmt: skip


MODELS = {
    "2B": _text(2048, 28, 16, 6144, tied=True),
    "4B": _text(2560, 36, 32, 9728, tied=True),
    "8B": _text(4096, 36, 32, 12288, tied=False),
    "32B": _text(5120, 64, 64, 25600, tied=False),
}
"""Decoders of Qwen3's sizes."""

_LORA = Lora(rank=16, alpha=32, targets=("text.attention", "text.mlp"))
_SOURCE = (Source(manifest="any.jsonl"),)
WAYS = {
    "full": Stage(
        name="full", mixture=_SOURCE, steps=1, learning_rate=LearningRates(vision=1e-6, projector=1e-5, text=1e-5)
    ),
    "LoRA": Stage(name="lora", mixture=_SOURCE, steps=1, learning_rate=LearningRates(projector=1e-5), lora=_LORA),
    "QLoRA": Stage(
        name="qlora", mixture=_SOURCE, steps=1, learning_rate=LearningRates(projector=1e-5),
        lora=replace(_LORA, quantize="nf4"),
    ),
}  # fmt: skip
"""What is trained: all; the projector and adapters of rank 16; the same with the decoder in 4 bits."""

HARDWARE = {
    "1 x 24 GB": ("rtx-4090-24gb", 1), "1 x 80 GB": ("h100-80gb", 1), "8 x 80 GB": ("h100-80gb", 8),
    "4 x 8 x 80 GB": ("h100-80gb", 32),
}  # fmt: skip
TOKENS = (32768, 16384, 8192, 4096, 2048)
PATCHES_PER_TOKEN = 2
"""Room for a mixture of text and images of which four patches become a token."""
LADDER: tuple[dict[str, Any], ...] = (
    {"zero_stage": 2}, {"zero_stage": 3}, {"zero_stage": 2, "offload": "optimizer"},
    {"zero_stage": 3, "offload": "optimizer"}, {"zero_stage": 3, "offload": "all"},
)  # fmt: skip
"""Fastest first. All in bf16 with activation checkpointing; on one process ZeRO divides nothing but keeps bf16 weights
with fp32 masters."""
SHORTEST = 8192
"""A pack shorter than this is worth the next settings of LADDER."""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One line of the table."""

    hardware: str
    model: str
    way: str
    settings: dict[str, Any]
    tokens: int
    memory: Memory


def curriculum_of(stage: Stage, settings: dict[str, Any], tokens: int) -> Curriculum:
    """As a YAML would say it."""
    return Curriculum(
        name="ladder",
        output_dir="runs/ladder",
        model=ModelSource(text={"config": {}}, tokenizer={"train": {}}),
        data=DataConfig(root="data", tokens_per_pack=tokens, patches_per_pack=PATCHES_PER_TOKEN * tokens),
        engine=EngineConfig(kind="deepspeed", precision="bf16", activation_checkpointing=True, **settings),
        stages=(stage,),
    )


def best(model: Model, stage: Stage, card: Accelerator, processes: int) -> tuple[dict[str, Any], int, Memory] | None:
    """Settings, tokens of a pack and memory: the first rung that takes a pack of SHORTEST, else the longest pack."""
    found = None
    for settings in LADDER:
        divides = settings["zero_stage"] == 3
        if divides and stage.lora is not None and stage.lora.quantize is not None:
            continue  # 4-bit weights cannot be divided
        if divides and processes == 1 and settings.get("offload") != "all":
            continue  # with nobody to divide with
        for tokens in TOKENS:
            memory = estimate_memory(model, curriculum_of(stage, settings, tokens), stage, processes)
            if memory.fits(card):
                if found is None or tokens > found[1]:
                    found = (settings, tokens, memory)
                break
        if found is not None and found[1] >= SHORTEST:
            return found
    return found


def rungs(models: Sequence[str] = tuple(MODELS)) -> Iterator[Rung | tuple[str, str, str]]:
    """Every line; (hardware, model, way) of what does not fit. QLoRA is left out where LoRA takes as much."""
    made = {}
    for name in models:
        config = build_config(VISION, {"hidden_size": 4096}, {"config": MODELS[name]}, VOCABULARY, VOCABULARY - 1)
        for way, stage in WAYS.items():
            made[name, way] = shaped(config, stage)[0]
    for hardware, (gpu, processes) in HARDWARE.items():
        before = None
        for (name, way), model in made.items():
            found = best(model, WAYS[way], named(gpu), processes)
            same = before is not None and found is not None and found[:2] == before[:2]
            before = found
            if way == "QLoRA" and same:
                continue
            if found is None:
                yield hardware, name, way
            else:
                settings, tokens, memory = found
                yield Rung(
                    hardware=hardware, model=name, way=way, settings=settings, tokens=tokens, memory=memory
                )  # fmt: skip


def table(models: Sequence[str] = tuple(MODELS)) -> str:
    """The table in Markdown."""
    lines = [
        "| GPUs | decoder | trains | `engine` | `tokens_per_pack` | GiB a GPU | GiB of host memory a process |",
        "|---|---|---|---|---|---|---|",
    ]
    for rung in rungs(models):
        if isinstance(rung, tuple):
            lines.append(f"| {' | '.join(rung)} | does not fit | | | |")
            continue
        settings = ", ".join(f"{name}: {value}" for name, value in rung.settings.items())
        host = f"{rung.memory.host:.0f}" if rung.memory.host else ""
        lines.append(
            f"| {rung.hardware} | {rung.model} | {rung.way} | {settings} | {rung.tokens:,} | "
            f"{rung.memory.needed():.0f} | {host} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help=f"page whose block between {BEGIN} and {END} is replaced")
    options = parser.parse_args(arguments)
    text = table()
    print(text)
    if options.write:
        write_block(options.write, BEGIN, END, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
