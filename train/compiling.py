"""torch.compile of the parts of a layer that stand between its attentions: feed-forward blocks and norms.

Compiled part by part ("regional compilation"), so that all layers share one compiled program and compilation takes
seconds. Attention stays as it is: it runs sample by sample over a pack, and a program that contained it would be
compiled again for each number of samples, until torch gives up (seen: one more program for each new number). Parts
that hold no attention are also what activation checkpointing can run again as one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

from medvlm.model.loading import Model
from medvlm.train.fsdp_engine import units
from medvlm.train.lora import component_of
from medvlm.train.settings.engine import Part

_ATTENTION = ("attn", "attention")
"""What attention is called in the libraries."""


def compile_parts(
    model: Model,
    components: Iterable[Part],
    device: torch.device,
    backend: Literal["inductor", "aot_eager"] = "inductor",
) -> dict[str, int]:
    """Let norms and feed-forward blocks of the layers of ``components`` be compiled when they first run.

    In place (``nn.Module.compile``), so that parameters keep their names. Sizes are dynamic: no pack is as long as the
    last. Put adapters in before.

    Returns:
        Component -> parts that are compiled, for the narration.

    Raises:
        ValueError: a component has no such part; torch finds no compiler for ``device``.
    """
    wanted = set(components)
    if not wanted:
        return {}
    if backend == "inductor":
        check_compiler(device)
    # The programs of the stages before would count towards the number after which torch compiles no more.
    torch.compiler.reset()
    # Dropout draws the numbers that it would draw otherwise: passes that are repeated must draw the same.
    options = {"fallback_random": True} if backend == "inductor" else None
    layers = {id(layer) for layer in units(model)}
    found = dict.fromkeys(sorted(map(str, wanted)), 0)
    for name, layer in model.named_modules():
        component = component_of(model, name)
        if component not in wanted or id(layer) not in layers:
            continue
        for part in parts_of(layer):
            part.compile(dynamic=True, backend=backend, options=options)
            found[component] += 1
    for component, count in found.items():
        if not count:
            raise ValueError(
                f"engine.compile names {component}, but its layers have no part that is compiled (norms and "
                "feed-forward blocks beside an attention); take it out of engine.compile"
            )
    return found


def parts_of(layer: nn.Module) -> list[nn.Module]:
    """The children of ``layer`` that compute something with weights and hold no attention.

    A module of torch.nn, such as a linear layer or a LayerNorm, is one operation already.
    """
    return [
        child
        for name, child in layer.named_children()
        if not any(_is_attention(path) for path in (name, *(inner for inner, _ in child.named_modules())))
        and not type(child).__module__.startswith("torch.nn.")
        and any(True for _ in child.parameters())
    ]


def _is_attention(path: str) -> bool:
    # "post_attention_layernorm" is a norm.
    return any(mark in name and "norm" not in name for name in path.split(".") for mark in _ATTENTION)


def check_compiler(device: torch.device) -> None:
    """Refuse a machine on which torch.compile would end in the first step.

    Raises:
        ValueError: says what is missing.
    """
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise ValueError(
                "engine.compile needs Triton on CUDA, which torch does not find; install it, or set compile: []"
            )
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise ValueError(
            f"engine.compile needs a C++ compiler on {device.type}, and torch finds none; install g++ or clang, name "
            "it in the variable CXX, or set compile: []"
        ) from error
