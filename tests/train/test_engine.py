"""All engines against plain torch on the whole batch: losses, norms, weights, resume, on two real processes."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from medvlm.train.distributed import connect, prepare_environment
from medvlm.train.engine import make_engine
from medvlm.train.settings.engine import EngineConfig

WORKER = Path(__file__).parent / "engine_worker.py"
_spec = importlib.util.spec_from_file_location("engine_worker", WORKER)
assert _spec is not None and _spec.loader is not None
worker = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(worker)

DEEPSPEED = importlib.util.find_spec("deepspeed") is not None
FSDP = {"kind": "fsdp"}
QUICK: list[dict] = [{"kind": "accelerate"}, FSDP]
SLOW: list[dict] = [{"kind": "accelerate", "precision": "bf16"}, {"kind": "fsdp", "precision": "bf16"}]
if DEEPSPEED:
    QUICK += [{"kind": "deepspeed", "zero_stage": stage} for stage in range(4)]
    QUICK += [{"kind": "deepspeed", "zero_stage": 2, "precision": "bf16"}]
    SLOW += [{"kind": "deepspeed", "zero_stage": stage, "precision": "bf16"} for stage in (1, 3)]
    SLOW += [{"kind": "deepspeed", "zero_stage": 2, "offload": "optimizer"}]
    SLOW += [{"kind": "deepspeed", "zero_stage": 3, "offload": "all"}]

# The largest relative differences seen: 1.4e-7 (losses), 3.0e-7 (norms); the order of summation in fp32.
FP32, BF16 = 1e-6, 1e-2


def name_of(config: dict) -> str:
    return "-".join(str(value) for value in config.values())


every_engine = pytest.mark.parametrize(
    "config",
    [pytest.param(config, id=name_of(config)) for config in QUICK]
    + [pytest.param(config, id=name_of(config), marks=pytest.mark.slow) for config in SLOW],
)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """Call it with a configuration: what both ranks report of it, and where its gathered weights lie."""
    launched: dict[int, tuple[list[dict], Path]] = {}

    def of(config):
        configs = QUICK if config in QUICK else SLOW
        if id(configs) not in launched:
            folder = tmp_path_factory.mktemp("engines")
            if FSDP in configs:
                worker.save_whole(EngineConfig(**FSDP, device="cpu"), folder / "of-one")
            launched[id(configs)] = launch(configs, folder)
        results, folder = launched[id(configs)]
        number = configs.index(config)
        return [result["engines"][number] for result in results], folder / str(number), results

    return of


def launch(configs: list[dict], folder: Path) -> tuple[list[dict], Path]:
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=localhost:0", str(WORKER), str(folder), json.dumps(configs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-6000:]
    return [json.loads((folder / f"result-{rank}.json").read_text()) for rank in (0, 1)], folder


@pytest.fixture(scope="module")
def reference():
    """Losses, norms and weights of plain torch, one process, one batch a step."""
    model = worker.make_network()
    groups = worker.make_groups(model)
    peaks = [group["lr"] for group in groups]
    parameters = [p for group in groups for p in group["params"]]
    optimizer = torch.optim.AdamW(groups)
    steps = []
    for step in range(worker.STEPS):
        parts = [worker.batch(step, m, part) for m in range(worker.MICRO) for part in range(worker.PARTS)]
        inputs, targets = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        loss = nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, worker.CLIP))
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * worker.factor(step)
        optimizer.step()
        steps.append((loss.item(), norm))
    assert any(norm > worker.CLIP for _, norm in steps) and any(norm < worker.CLIP for _, norm in steps)
    return steps, {name: tensor.detach() for name, tensor in model.state_dict().items()}


def tolerance_of(config: dict) -> float:
    return BF16 if config.get("precision") == "bf16" else FP32


@every_engine
def test_two_ranks_train_as_one_process_on_the_whole_batch(two_ranks, reference, config):
    rows, _, _ = two_ranks(config)
    tolerance = tolerance_of(config)
    for row in rows:
        for (loss, norm), (right_loss, right_norm) in zip(row["steps"], reference[0], strict=True):
            assert loss == pytest.approx(right_loss, rel=tolerance)
            assert norm == pytest.approx(right_norm, rel=tolerance)


@every_engine
def test_gathered_weights_are_whole_and_right(two_ranks, reference, config):
    rows, files, _ = two_ranks(config)
    weights, masters = load_file(f"{files}.safetensors"), load_file(f"{files}.masters")
    assert weights.keys() == reference[1].keys()
    tolerance = 10 * tolerance_of(config)
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor.float(), reference[1][name], rtol=tolerance, atol=tolerance)
    start = worker.make_network().state_dict()
    frozen = {"vision.0.weight", "vision.0.bias", "scale"}
    for name, tensor in weights.items():
        assert torch.equal(tensor, start[name].to(tensor.dtype)) == (name in frozen), name
    assert masters.keys() == weights.keys() - frozen
    assert all(tensor.dtype == torch.float32 for tensor in masters.values())
    assert all(torch.equal(tensor.to(weights[name].dtype), weights[name]) for name, tensor in masters.items())
    assert rows[0]["tied"] is True


@every_engine
def test_a_step_may_end_before_the_announced_number_of_micro_batches(two_ranks, config):
    for row in two_ranks(config)[0]:
        for (loss, norm), (right_loss, right_norm) in zip(row["early"], row["steps"], strict=True):
            assert (loss, norm) == pytest.approx((right_loss, right_norm), rel=tolerance_of(config))


@every_engine
def test_resume_is_exact_and_refuses_other_frozen_weights(two_ranks, config):
    rows, _, _ = two_ranks(config)
    assert [row["resumed"] for row in rows] == [True, True]
    refusals = [row["refusal"] for row in rows]
    assert "not refused" not in refusals
    # Under ZeRO-3 only the rank that holds the changed part of the weight can see it, and stops the other.
    assert any("vision.0.weight" in r and "not those" in r for r in refusals), refusals


def test_fsdp_loads_what_another_number_of_processes_saved(two_ranks):
    rows, files, _ = two_ranks(FSDP)
    assert [row["loaded"] for row in rows] == [True, True], "1 -> 2"
    assert worker.loads_whole(EngineConfig(**FSDP, device="cpu"), files.parent / "of-two"), "2 -> 1"


@every_engine
def test_the_engine_that_was_asked_for_ran(two_ranks, config):
    kinds = {"deepspeed": "DeepSpeedEngine", "accelerate": "AccelerateEngine", "fsdp": "FsdpEngine"}
    assert [row["kind"] for row in two_ranks(config)[0]] == [kinds[config["kind"]]] * 2


def test_ranks_with_different_configurations_are_named(two_ranks):
    for result in two_ranks(QUICK[0])[2]:
        assert "the configuration of rank 1 is not that of rank 0" in result["ranks"]


@pytest.fixture
def engine():
    model = worker.make_network()
    made = make_engine(EngineConfig(device="cpu"), model, worker.make_groups(model), 0.0, 1)
    yield made
    made.close()


def test_learning_rates_must_fit_the_groups(engine):
    engine.backward(engine.model(torch.ones(1, 8)).sum(), last=True)
    with pytest.raises(ValueError, match=r"projector\.decay"):
        engine.step({"text.decay": 0.1})


def test_a_gradient_that_is_not_finite_stops_before_the_update(engine):
    before = engine.gather_state_dict()
    engine.backward(engine.model(torch.full((1, 8), torch.inf)).sum(), last=True)
    with pytest.raises(FloatingPointError, match="gradient norm is nan"):
        engine.step(dict.fromkeys([group["name"] for group in worker.make_groups(worker.make_network())], 0.1))
    assert worker.equal_weights(before, engine.gather_state_dict())


def test_more_micro_batches_than_announced_are_refused(engine):
    with pytest.raises(ValueError, match="micro-batch 1 of 1"):
        engine.backward(engine.model(torch.ones(1, 8)).sum(), last=False)


def test_accelerate_may_not_choose_otherwise(monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    model = worker.make_network()
    with pytest.raises(RuntimeError, match="gradient_accumulation_steps 4"):
        make_engine(EngineConfig(device="cpu"), model, worker.make_groups(model), 0.0, 1)


def test_half_a_launcher_is_refused(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    for name in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="sets RANK but not WORLD_SIZE, LOCAL_RANK"):
        connect("cpu")


def test_compiled_operators_have_a_folder_for_each_environment(monkeypatch):
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    monkeypatch.setenv("DS_ACCELERATOR", "")
    monkeypatch.setenv("PATH", "/usr/bin")
    prepare_environment("cpu")
    mine = os.environ["TORCH_EXTENSIONS_DIR"]
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR")
    monkeypatch.setattr(sys, "prefix", "/another/environment")
    prepare_environment("cpu")
    assert os.environ["TORCH_EXTENSIONS_DIR"] != mine
    assert "medvlm" in mine
    assert os.environ["PATH"].startswith("/another/environment/bin:")


def test_missing_deepspeed_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)  # what Python itself does to an import that must fail
    model = worker.make_network()
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'medvlm\[deepspeed\]'"):
        make_engine(EngineConfig(kind="deepspeed", device="cpu"), model, worker.make_groups(model), 0.0, 1)
