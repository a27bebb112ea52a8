"""Run by torchrun from test_engine.py: every engine trains the same small network; rank 0 writes what came out."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medvlm.train.distributed import check_same_on_all_ranks, disconnect
from medvlm.train.engine import Engine, make_engine
from medvlm.train.optim import learning_rate_at, parameter_groups, scaled_learning_rates
from medvlm.train.randomness import seed_everything
from medvlm.train.settings.engine import EngineConfig

STEPS, MICRO, PARTS, WIDTH, CLIP = 6, 2, 2, 16, 0.5
RATES = {"vision": 1e-2, "projector": 2e-2, "text": 5e-3}


class Network(nn.Module):
    """Three components; part of vision is frozen, two weights of text are tied, and there is a saved buffer."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.vision = nn.Sequential(nn.Linear(8, WIDTH), nn.LayerNorm(WIDTH), nn.GELU())
        self.projector = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(dropout))
        self.text = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
        self.text[2].weight = self.text[0].weight
        self.register_buffer("scale", torch.tensor([1.5]))
        self.vision[0].requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.text(self.projector(self.vision(inputs.to(self.vision[1].weight.dtype)))) * self.scale


def make_network(dropout: float = 0.0) -> Network:
    torch.manual_seed(0)
    return Network(dropout)


def make_groups(model: nn.Module) -> list[dict]:
    return parameter_groups(model.named_parameters(), lambda name: name.split(".")[0], RATES, 0.1)


def batch(step: int, micro: int, part: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets of one rank's micro-batch; sizes differ, so that a mean of means would show."""
    generator = torch.Generator().manual_seed(1000 * step + 10 * micro + part)
    rows = 3 + (step + micro + 2 * part) % 4
    return torch.randn(rows, 8, generator=generator), torch.randint(0, WIDTH, (rows,), generator=generator)


def rows_of(step: int) -> int:
    return sum(len(batch(step, micro, part)[1]) for micro in range(MICRO) for part in range(PARTS))


def factor(step: int) -> float:
    return learning_rate_at(step, schedule="cosine", total_steps=STEPS, warmup_steps=1)


def train(
    engine: Engine, groups: list[dict], start: int, stop: int, *, look: bool = False
) -> list[tuple[float, float]]:
    """(loss, gradient norm) of the steps; ``look`` adds a forward pass without gradient, as preference stages do."""
    result = []
    for step in range(start, stop):
        total = torch.zeros((), dtype=torch.float64)
        for micro in range(MICRO):
            inputs, targets = batch(step, micro, engine.rank)
            if look:
                with torch.no_grad():
                    engine.model(inputs)
            loss = nn.functional.cross_entropy(engine.model(inputs).float(), targets, reduction="sum") / rows_of(step)
            total += loss.detach().double()
            engine.backward(loss, last=micro == MICRO - 1)
        norm = engine.step(scaled_learning_rates(groups, factor(step)))
        result.append((float(engine.sum_over_ranks(total)), norm))
    return result


def start(config: EngineConfig, dropout: float = 0.0) -> tuple[Engine, list[dict]]:
    model = make_network(dropout)
    groups = make_groups(model)
    return make_engine(config, model, groups, CLIP, MICRO), groups


def equal_weights(one: dict[str, Tensor] | None, other: dict[str, Tensor] | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def resume_exactly(config: EngineConfig, folder: Path) -> bool:
    """Straight on, and stopped and resumed with other randomness in between: the same losses and weights?"""
    engine, groups = start(config, dropout=0.2)
    seed_everything(7, engine.rank)
    train(engine, groups, 0, 3)
    if engine.rank == 0:
        folder.mkdir(parents=True)
    engine.barrier()
    engine.save_state(folder)
    straight = train(engine, groups, 3, STEPS)
    weights = engine.gather_state_dict()
    engine.close()
    engine, groups = start(config, dropout=0.2)
    seed_everything(8, engine.rank)
    engine.load_state(folder)
    resumed = train(engine, groups, 3, STEPS)
    equal = straight == resumed and equal_weights(weights, engine.gather_state_dict())
    engine.close()
    return equal


def steps_ended_early(config: EngineConfig) -> list[tuple[float, float]]:
    """Train with one micro-batch fewer in each step than was announced to the engine."""
    model = make_network()
    groups = make_groups(model)
    engine = make_engine(config, model, groups, CLIP, MICRO + 1)
    steps = train(engine, groups, 0, STEPS)
    engine.close()
    return steps


def refusal_of_other_frozen_weights(config: EngineConfig, folder: Path) -> str:
    model = make_network(0.2)
    with torch.no_grad():
        model.vision[0].weight[0, 0] += 1e-3
    engine = make_engine(config, model, make_groups(model), CLIP, MICRO)
    try:
        engine.load_state(folder)
    except (ValueError, RuntimeError) as error:
        return str(error)
    finally:
        engine.close()
    return "not refused"


def whole_state(engine: Engine) -> dict[str, Tensor]:
    """Trained weights and the optimizer's averages of FSDP, whole, on every rank."""
    state = {}
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            state[name] = parameter.full_tensor().detach().clone()
            for key in ("exp_avg", "exp_avg_sq"):
                state[f"{name}.{key}"] = engine.optimizer.state[parameter][key].full_tensor()
    return state


def save_whole(config: EngineConfig, folder: Path) -> None:
    """Train a little, save, and write beside the state what it holds, whole."""
    engine, groups = start(config)
    train(engine, groups, 0, 3)
    if engine.rank == 0:
        folder.mkdir(parents=True)
    engine.barrier()
    engine.save_state(folder)
    state = whole_state(engine)
    if engine.rank == 0:
        save_file(state, folder / "whole")
    engine.close()


def loads_whole(config: EngineConfig, folder: Path) -> bool:
    """Is a state of another number of processes, loaded by these, what was saved? And does it train on?"""
    engine, groups = start(config)
    engine.load_state(folder)
    equal = equal_weights(whole_state(engine), load_file(folder / "whole"))
    equal = equal and generates_alone(engine)
    train(engine, groups, 3, 4)
    engine.close()
    return equal


def generates_alone(engine: Engine) -> bool:
    """With whole weights each rank may run the model as often as it likes, and it is the model that was gathered."""
    weights = [engine.gather_state_dict()]
    if dist.is_initialized():
        dist.broadcast_object_list(weights)
    plain = make_network()
    plain.load_state_dict(weights[0])
    inputs = torch.linspace(-1, 1, 24).view(3, 8)
    with torch.no_grad(), engine.whole_weights():
        for _ in range(1 + 2 * engine.rank):
            out = engine.module(inputs)
        return bool(torch.allclose(out, plain(inputs), atol=1e-6))


def main(folder: Path, configs: list[dict]) -> None:
    results = []
    for number, fields in enumerate(configs):
        config = EngineConfig(**fields, device="cpu")
        engine, groups = start(config)
        row = {"steps": train(engine, groups, 0, STEPS, look=True), "kind": type(engine).__name__}
        weights = engine.gather_state_dict()
        masters = engine.gather_state_dict(only_trainable=True, weights="master")
        if weights is not None and masters is not None:
            row["tied"] = weights["text.0.weight"] is weights["text.2.weight"]
            save_file({name: tensor.clone() for name, tensor in weights.items()}, folder / f"{number}.safetensors")
            save_file({name: tensor.clone() for name, tensor in masters.items()}, folder / f"{number}.masters")
        else:
            row["tied"] = None
        if engine.rank == 1 and (weights is not None or masters is not None):
            raise AssertionError("rank 1 holds gathered weights")
        engine.close()
        row["early"] = steps_ended_early(config)
        row["resumed"] = resume_exactly(config, folder / f"state-{number}")
        row["refusal"] = refusal_of_other_frozen_weights(config, folder / f"state-{number}")
        if fields == {"kind": "fsdp"}:
            row["loaded"] = loads_whole(config, folder / "of-one")
            save_whole(config, folder / "of-two")
        results.append((engine.rank, row))
    rank = results[0][0]
    try:
        check_same_on_all_ranks("configuration", f"rank {rank}", torch.device("cpu"))
        ranks = "not refused"
    except ValueError as error:
        ranks = str(error)
    check_same_on_all_ranks("configuration", "the same", torch.device("cpu"))
    out = {"engines": [row for _, row in results], "ranks": ranks}
    (folder / f"result-{rank}.json").write_text(json.dumps(out))
    disconnect()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
