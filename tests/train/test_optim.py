"""Parameter groups and schedules."""

import pytest
import torch
from torch import nn

from medvlm.train.optim import learning_rate_at, parameter_groups, scaled_learning_rates, set_learning_rates


def component_of(name: str) -> str:
    return name.split(".")[0]


@pytest.fixture
def model():
    network = nn.ModuleDict(
        {"vision": nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), "text": nn.Sequential(nn.Linear(4, 4))}
    )
    network["vision"][0].requires_grad_(False)
    return network


def test_groups_hold_exactly_what_is_trained_and_decay_only_matrices(model):
    groups = parameter_groups(model.named_parameters(), component_of, {"vision": 1e-4, "text": 1e-3}, 0.1)
    assert [(g["name"], g["lr"], g["weight_decay"], len(g["params"])) for g in groups] == [
        ("text.decay", 1e-3, 0.1, 1),
        ("text.no_decay", 1e-3, 0.0, 1),
        ("vision.no_decay", 1e-4, 0.0, 2),
    ]
    held = {id(p) for group in groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}


def test_positions_and_class_tokens_are_not_decayed():
    network = nn.ModuleDict({"vision": nn.Module()})
    network["vision"].table, network["vision"].prefix = nn.Parameter(torch.ones(4, 2)), nn.Parameter(torch.ones(1, 2))
    groups = parameter_groups(network.named_parameters(), component_of, {"vision": 1e-4}, 0.1)
    assert [(g["name"], g["weight_decay"], len(g["params"])) for g in groups] == [("vision.no_decay", 0.0, 2)]


def test_what_is_trained_and_what_has_a_rate_must_agree(model):
    with pytest.raises(ValueError, match=r"'text\.0\.weight' is trainable, but its component 'text' has no"):
        parameter_groups(model.named_parameters(), component_of, {"vision": 1e-4}, 0.1)
    with pytest.raises(ValueError, match=r"'projector' has learning rate 0\.001 but no trainable"):
        rates = {"vision": 1e-4, "text": 1e-3, "projector": 1e-3}
        parameter_groups(model.named_parameters(), component_of, rates, 0.1)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        parameter_groups(model.named_parameters(), component_of, {}, 0.1)


def test_schedules_at_their_known_points():
    def at(step, schedule, **more):
        return learning_rate_at(step, schedule=schedule, total_steps=11, **more)

    assert [at(step, "constant") for step in (0, 10)] == [1.0, 1.0]
    assert [at(step, "linear") for step in (0, 5, 10)] == pytest.approx([1.0, 0.5, 0.0])
    assert [at(step, "cosine") for step in (0, 5, 10)] == pytest.approx([1.0, 0.5, 0.0])
    assert at(10, "cosine", minimum_ratio=0.1) == pytest.approx(0.1)
    assert [at(step, "cosine", warmup_steps=3) for step in (0, 1, 2, 3)] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert learning_rate_at(0, schedule="cosine", total_steps=1) == 1.0
    # torch's own cosine annealing over the same 10 intervals
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=0.2)
    for step in range(11):
        assert at(step, "cosine", minimum_ratio=0.2) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


def test_rates_are_written_by_place_and_must_fit(model):
    groups = parameter_groups(model.named_parameters(), component_of, {"vision": 1e-4, "text": 1e-3}, 0.1)
    optimizer = torch.optim.AdamW([dict(group) for group in groups])
    names = [group["name"] for group in groups]
    for group in optimizer.param_groups:
        group.update(lr=7.0, name="lost")
    set_learning_rates(optimizer.param_groups, names, scaled_learning_rates(groups, 0.5))
    assert [group["lr"] for group in optimizer.param_groups] == [5e-4, 5e-4, 5e-5]
    with pytest.raises(ValueError, match="the optimizer has 3 groups"):
        set_learning_rates(optimizer.param_groups, names, {"text.decay": 1.0})
