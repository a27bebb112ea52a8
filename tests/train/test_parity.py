"""The real model, all engines, two real processes: the same losses and weights as one process on all packs."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_model
from launching import FULL, torchrun
from PIL import Image as Pil
from safetensors.torch import load_file

from medvlm.data_recipes.packing import collate
from medvlm.data_recipes.rendering import Renderer
from medvlm.model import load_checkpoint, save_checkpoint
from medvlm.train.assemble import set_trainable
from medvlm.train.config import EngineConfig, Source, Stage
from medvlm.train.objectives.supervised import Supervised

WORKER = Path(__file__).parent / "parity_worker.py"
_spec = importlib.util.spec_from_file_location("parity_worker", WORKER)
assert _spec is not None and _spec.loader is not None
worker = importlib.util.module_from_spec(_spec)
sys.modules["parity_worker"] = worker  # dataclasses look their module up
_spec.loader.exec_module(worker)

DEEPSPEED = importlib.util.find_spec("deepspeed") is not None
ZERO = {f"ZeRO {stage}": {"kind": "deepspeed", "zero_stage": stage} for stage in range(4)} if DEEPSPEED else {}
ENGINES = {"accelerate": {"kind": "accelerate"}, "FSDP": {"kind": "fsdp"}, **ZERO}
# Two processes that share each pack: they must give what one process gives that has the packs alone.
SHARED = {"shared": {"kind": "accelerate", "sequence_parallel": 2}}
if DEEPSPEED:
    SHARED["shared, ZeRO 3"] = {"kind": "deepspeed", "zero_stage": 3, "sequence_parallel": 2}
QUICK = [
    (variant, engine)
    for variant in ("vision frozen", "lora", "preference", "preference over the step")
    for engine in ("accelerate", "ZeRO 2")
    if engine in ENGINES
]
QUICK += [("lora", "FSDP"), ("vision frozen", "shared")]
QUICK += [("vision frozen", "ZeRO 3")] if DEEPSPEED else []
# Full training under every engine.
SLOW = [("all", engine) for engine in ENGINES]
if FULL:
    SLOW += [(v, e) for v in worker.VARIANTS for e in ENGINES if (v, e) not in [*QUICK, *SLOW]]
    SLOW += [(variant, engine) for variant in ("all", "lora") for engine in SHARED]


# The largest differences seen: 2.3e-7 (losses), 3.5e-7 (norms), both relative, and 7e-6 (weights): the order of
# summation in fp32.
LOSS, NORM, WEIGHT = 2e-6, 4e-6, 5e-5


@pytest.fixture(scope="module")
def start(processor, tmp_path_factory) -> Path:
    """A folder of a checkpoint, with the visuals beside it."""
    folder = tmp_path_factory.mktemp("parity")
    generator = np.random.default_rng(0)
    for name in "ab":
        Pil.fromarray(generator.integers(0, 255, (60, 80), dtype=np.uint8)).save(folder / f"{name}.png")
    np.save(folder / "c.npy", generator.normal(-300, 400, (12, 48, 40)).astype(np.float32))
    save_checkpoint(folder / "start", tiny_model(processor), processor)
    return folder / "start"


@pytest.fixture(scope="module")
def two_ranks(start):
    """Call it with (variant, engine): the folder that two processes left. One launch for the quick, one for others."""
    launched: dict[int, dict[tuple[str, str], Path]] = {}

    def of(run):
        runs = QUICK if run in QUICK else SLOW
        if id(runs) not in launched:
            launched[id(runs)] = launch(runs, start)
        return launched[id(runs)][run]

    return of


def launch(runs: list[tuple[str, str]], start: Path) -> dict[tuple[str, str], Path]:
    folders = {(variant, engine): start.parent / f"{variant}-{engine}" for variant, engine in runs}
    described = [
        {"variant": variant, "engine": (ENGINES | SHARED)[engine], "folder": str(folder)}
        for (variant, engine), folder in folders.items()
    ]
    for folder in folders.values():
        folder.mkdir()
    done = torchrun(WORKER, [str(start), json.dumps(described)])
    assert done.returncode == 0, done.stderr[-6000:]
    return folders


@pytest.fixture(scope="module")
def one_process(start):
    """Variant -> folder of one process that takes the packs of both ranks."""
    folders = {}
    for variant in worker.VARIANTS:
        folders[variant] = start.parent / f"{variant}-alone"
        folders[variant].mkdir()
        config = EngineConfig(device="cpu", gradient_clip=0.5)
        worker.train_once(config, variant, start, folders[variant], worker.PACKS * worker.RANKS)
    return folders


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("variant", "engine"), [*QUICK, *(pytest.param(*run, marks=pytest.mark.slow) for run in SLOW)])
def test_every_engine_trains_as_one_process(two_ranks, one_process, variant, engine):
    folder, alone = two_ranks((variant, engine)), one_process[variant]
    rows, right = rows_of(folder), rows_of(alone)
    assert len(rows) == len(right) == worker.STEPS
    assert right[-1]["loss"] < 0.95 * right[0]["loss"], "a training that does not move proves no equality"
    for row, expected in zip(rows, right, strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], rel=LOSS)
        assert row["grad_norm"] == pytest.approx(expected["grad_norm"], rel=NORM)
        assert row["supervised_tokens"] == expected["supervised_tokens"]
        for metric in {"reward_accuracy", "divergence", "reward_shift"} & expected.keys():
            assert row[metric] == pytest.approx(expected[metric], rel=1e-4, abs=1e-6)
    weights, expected_weights = load_file(folder / "weights"), load_file(alone / "weights")
    assert weights.keys() == expected_weights.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, expected_weights[name], atol=WEIGHT, rtol=0, msg=name)


@pytest.mark.parametrize(("variant", "engine"), QUICK)
def test_what_is_frozen_is_the_same_to_the_bit(two_ranks, start, variant, engine):
    weights, before = load_file(two_ranks((variant, engine)) / "weights"), load_file(start / "model.safetensors")
    trained = {"vision frozen": ("projector", "text"), "lora": ("projector",)}.get(variant, ())
    for name, tensor in weights.items():
        original = before.get(name.replace(".base_layer.", "."))
        if original is None:
            # Adapters, and the second name of a tied weight.
            assert "lora_" in name or name == "text.lm_head.weight", name
        elif name.split(".")[0] in trained:
            assert not torch.equal(tensor, original), name
        else:
            assert torch.equal(tensor, original), name


@pytest.mark.parametrize("variant", ["all", "vision frozen", "lora"])
def test_a_pack_of_text_gives_every_trained_parameter_a_gradient(start, variant):
    """What ZeRO-2/3 need: their collectives are hooked on gradients, and a rank that skips one stops the others."""
    stage = Stage(name="s", mixture=(Source(manifest="none"),), steps=1, **worker.VARIANTS[variant])
    model, processor = load_checkpoint(start)
    set_trainable(model.train(), stage)
    renderer = Renderer(processor, start.parent)
    sample = worker.samples_of(variant)[0]
    pack = collate([(sample.sample_id, renderer.sides(sample))])
    assert len(pack.patches) == 0
    Supervised()(model, pack).total.backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None] == []
    visual = [p.grad for name, p in trained.items() if not name.startswith("text.")]
    assert visual and all(not gradient.any() for gradient in visual), "the blank visual must not train anything"
    # Without it there would be none: this is what the blank visual is for.
    model.zero_grad(set_to_none=True)
    embeds = model.get_input_embeddings()(pack.tokens[None])
    model.text(inputs_embeds=embeds).logits.sum().backward()
    assert all(p.grad is None for name, p in trained.items() if not name.startswith("text."))


def test_the_blank_visual_changes_no_number(start):
    model, processor = load_checkpoint(start)
    sample = worker.samples_of("all")[1]
    pack = collate([(sample.sample_id, Renderer(processor, start.parent).sides(sample))])
    with torch.no_grad():
        evaluating = model(**pack.model_inputs()).logits
        training = model.train()(**pack.model_inputs()).logits
    assert torch.equal(evaluating, training)


@pytest.mark.slow
@pytest.mark.skipif(not DEEPSPEED, reason="DeepSpeed is not installed")
@pytest.mark.parametrize("engine", ["ZeRO 2", "ZeRO 3"] if FULL else ["ZeRO 2"])
def test_without_the_blank_visual_ranks_part_ways(start, tmp_path, engine):
    """What the blank visual is for: with it the same packs train in the tests above."""
    run = {"variant": "all", "engine": ENGINES[engine], "folder": str(tmp_path), "without_blank_visual": True}
    try:
        done = torchrun(WORKER, [str(start), json.dumps([run])], timeout=60)
    except subprocess.TimeoutExpired:
        return  # one rank waits for ever in a collective operation that the other never enters
    assert done.returncode != 0
    assert "collective" in done.stderr, done.stderr[-3000:]  # and not a mistake in this test
