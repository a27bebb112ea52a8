"""Our harness against a bare loop of model.generate over the same questions, and against asking one by one.

    python -m medvlm.scripts.bench.evaluation_generate                 # 96 questions, batches of 8
    python -m medvlm.scripts.bench.evaluation_generate --questions 48 --batch 4 --repeats 3

A model of 12 million random weights (encoder and decoder of 4 layers, 8,192 words) answers made-up questions about
PNG pictures on disk; a quarter of the questions shows none, and prompts are of 10 to 150 words. Each answer has 16
tokens, because random weights never end one. Three ways in turn, the fastest of all repeats of each:

- harness: ``eval.generate.generate`` into a fresh run folder, every answer on the disk; pictures read and cut ahead by
  other threads, requests sorted by size.
- bare loop: what one would write by hand. Pictures of a batch are read and cut, model.generate, text decoded; batches
  in the order of the questions; nothing is written. Its time inside of model.generate is told apart.
- one by one: the harness with batches of 1.

Goals: harness / bare loop <= 1.2, and one by one / harness >= 2.

Predicted before the first measurement, on two cores: 1.0 against the bare loop (sorting saves a tenth of the prompt
tokens; writing and threads cost about as much), because on a CPU reading ahead takes its core from the model; 2.5
against one by one, because a step of a batch of 8 reads the weights once where 8 steps read them 8 times, but the
encoder and the prompts take as long in either way.

Exit code: 0 when the goals were met, 1 when not.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image as Pil

from medvlm.data_recipes.readers import read
from medvlm.data_recipes.sample import Question, Sample, Turn, VisualRef, chat, visuals_of
from medvlm.eval.batch_decoding import end_ids
from medvlm.eval.generate import generate
from medvlm.eval.loaded_model import LoadedModel
from medvlm.eval.plan import Ask, Item, make_plan
from medvlm.eval.run_folder import responses_of
from medvlm.model.loading import build_model
from medvlm.model.processing import MedVLMProcessor
from medvlm.model.tokenizer import train_tokenizer
from medvlm.scripts.bench.hardware import hardware

WITHIN, AT_LEAST, ROOM = 1.2, 2.0, 16
WORDS = (
    *(
        "lung",
        "heart",
        "left",
        "right",
        "upper",
        "lower",
        "zone",
        "nodule",
        "mass",
        "effusion",
        "pneumothorax",
        "normal",
    ),
    *("consolidation", "opacity", "enlarged", "small", "large", "there", "is", "no", "the", "a", "of", "in", "with"),
    *(
        "and",
        "on",
        "picture",
        "shows",
        "patient",
        "history",
        "cough",
        "fever",
        "pain",
        "since",
        "days",
        "prior",
        "study",
    ),
)
SIZES = ((224, 224), (320, 256), (160, 240), (448, 448))


def questions(folder: Path, count: int, seed: int = 0) -> list[Ask]:
    """``count`` questions, with the pictures of three of four written to ``folder``."""
    draw = np.random.default_rng(seed)
    items = []
    for number in range(count):
        text = " ".join(draw.choice(WORDS, int(draw.integers(10, 150)))) + "? Answer yes or no."
        content: tuple[str | VisualRef, ...] = (text,)
        if number % 4:
            height, width = SIZES[number % len(SIZES)]
            small = draw.integers(0, 255, (height // 16, width // 16), dtype=np.uint8)
            Pil.fromarray(small).resize((width, height), Pil.Resampling.BICUBIC).save(folder / f"{number}.png")
            content = (VisualRef(kind="image", path=f"{number}.png"), text)
        sample = Sample(
            sample_id=str(number), patient_id=str(number), study_id=str(number), source="made-up", licence="CC0-1.0",
            split="test", turns=(Turn(role="user", content=content),),
            question=Question(kind="closed", answers=("yes",), choices=("yes", "no")),
        )  # fmt: skip
        items.append(Item(sample=sample, manifest=folder / "made-up"))
    return list(make_plan(items, conditions=["image"], max_new_tokens=ROOM).asks)


def a_model() -> tuple[Any, MedVLMProcessor]:
    """Random weights, large enough that a step is work, small enough for two cores."""
    torch.manual_seed(0)
    processor = MedVLMProcessor(train_tokenizer([" ".join(WORDS)] * 2, 400), patch_size=(2, 16, 16))
    width = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
    text = {"model_type": "qwen3", **width, "num_key_value_heads": 2, "head_dim": 64}
    vision = {**width, "patch_size": (2, 16, 16)}
    model = build_model(vision, {"hidden_size": 512}, {"config": text}, 8192, processor.visual_token_id)
    return model.eval(), processor


def harness(model: Any, processor: Any, asks: Sequence[Ask], batch: int) -> dict[str, str]:
    """Request -> text, by our stage."""
    answerer = LoadedModel(model, processor, name="made-up", batch_size=batch)
    with tempfile.TemporaryDirectory() as name:
        generate(answerer, asks, Path(name), chunk_size=2 * batch, show_progress=False)
        return {row["request_id"]: row["text"] for row in responses_of(Path(name))}


def bare_loop(model: Any, processor: Any, asks: Sequence[Ask], batch: int, inside: list[float]) -> dict[str, str]:
    """Request -> text, as written by hand; appends the seconds inside of model.generate to ``inside``."""
    ends, tokenizer = sorted(end_ids(model, processor)), processor.tokenizer
    texts: dict[str, str] = {}
    total = 0.0
    for start in range(0, len(asks), batch):
        some = asks[start : start + batch]
        visuals = [[read(ref, ask.item.root) for ref in visuals_of(ask.turns)] for ask in some]
        inputs = processor([chat(ask.turns) for ask in some], visuals)
        begun = perf_counter()
        with torch.no_grad():
            ids = model.generate(
                **inputs, max_new_tokens=ROOM, do_sample=False, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id
            )
        total += perf_counter() - begun
        written = tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        texts |= {ask.request_id: text.strip() for ask, text in zip(some, written, strict=True)}
    inside.append(total)
    return texts


def measure(count: int, batch: int, repeats: int) -> dict[str, float]:
    """Seconds of each way, the fastest of ``repeats``.

    Raises:
        RuntimeError: the ways wrote unlike answers.
    """
    model, processor = a_model()
    inside: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        asks = questions(Path(name), count)
        ways: dict[str, Callable[[], dict[str, str]]] = {
            "harness": lambda: harness(model, processor, asks, batch),
            "bare loop": lambda: bare_loop(model, processor, asks, batch, inside),
            "one by one": lambda: harness(model, processor, asks, 1),
        }
        taken: dict[str, list[float]] = {way: [] for way in ways}
        harness(model, processor, asks[:batch], batch)  # what libraries set up once
        for _ in range(repeats):
            wrote = {}
            for way, run in ways.items():
                begun = perf_counter()
                wrote[way] = run()
                taken[way].append(perf_counter() - begun)
            if not wrote["harness"] == wrote["bare loop"] == wrote["one by one"]:
                raise RuntimeError("the ways wrote unlike answers: what is compared is not the same work")
    return {way: min(seconds) for way, seconds in taken.items()} | {"inside generate": min(inside)}


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m medvlm.scripts.bench.evaluation_generate", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--questions", type=int, default=96)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    seconds = measure(given.questions, given.batch, given.repeats)
    ratios = {
        "harness / bare loop": seconds["harness"] / seconds["bare loop"],
        "harness / time inside model.generate": seconds["harness"] / seconds["inside generate"],
        "one by one / harness": seconds["one by one"] / seconds["harness"],
    }
    met = ratios["harness / bare loop"] <= WITHIN and ratios["one by one / harness"] >= AT_LEAST
    if given.json:
        print(json.dumps({**seconds, **ratios, "met": met}))
        return 0 if met else 1
    day = datetime.now(tz=UTC).date().isoformat()
    print(f"{given.questions} questions, batches of {given.batch}, {hardware(torch.device('cpu'))}, {day}\n")
    print("| way | seconds | answers a second |\n|---|---|---|")
    for way, took in seconds.items():
        print(f"| {way} | {took:.2f} | {given.questions / took:.1f} |")
    print("\n| ratio | measured | goal |\n|---|---|---|")
    goals = (f"<= {WITHIN}", "", f">= {AT_LEAST}")
    for (name, ratio), goal in zip(ratios.items(), goals, strict=True):
        print(f"| {name} | {ratio:.2f} | {goal} |")
    print(f"\ngoals {'met' if met else 'NOT met'}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
