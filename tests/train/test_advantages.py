"""Advantages and losses of GRPO, DAPO and Dr.GRPO against closed forms."""

import math

import pytest
import torch

from medvlm.train.config import ReinforcementConfig
from medvlm.train.objectives.advantages import (
    advantages_of,
    items_of,
    overlong_punishment,
    token_losses,
    token_weights,
    without_signal,
)

REWARDS = torch.tensor([[1.0, 0, 0, 1], [0.5, 0.5, 0.5, 0.5], [1, 0, 0, 0]], dtype=torch.float64)


def config(**changes):
    return ReinforcementConfig(**{"group_size": 4, "max_new_tokens": 10, **changes})


def test_advantages_compare_a_group_with_itself():
    deviation = math.sqrt(1 / 3)  # of 1, 0, 0, 1 with Bessel's correction
    found = advantages_of(REWARDS, config())
    assert found[0].tolist() == pytest.approx([0.5 / (deviation + 1e-4) * sign for sign in (1, -1, -1, 1)])
    assert found[1].tolist() == [0, 0, 0, 0]
    assert found[2].tolist() == pytest.approx([0.75 / (0.5 + 1e-4), *[-0.25 / (0.5 + 1e-4)] * 3])
    assert advantages_of(REWARDS, config(algorithm="dr_grpo"))[2].tolist() == [0.75, -0.25, -0.25, -0.25]
    assert without_signal(REWARDS).tolist() == [False, True, False]


def test_the_buffer_of_long_answers_costs_linearly():
    tokens = torch.tensor([1, 6, 8, 10])
    assert overlong_punishment(tokens, config()).tolist() == [0, 0, 0, 0]
    assert overlong_punishment(tokens, config(overlong_buffer=4)).tolist() == [0, 0, -0.5, -1]


def test_the_clip_stops_the_gradient_on_one_side_only():
    old = torch.zeros(6)
    new = torch.log(torch.tensor([1.5, 1.5, 0.5, 0.5, 1.25, 1.0])).requires_grad_()
    advantages = torch.tensor([1.0, -1, 1, -1, 1, 1])
    found = token_losses(new, old, advantages, None, config(clip_low=0.2, clip_high=0.28))
    assert found.losses.tolist() == pytest.approx([-1.28, 1.5, -0.5, 0.8, -1.25, -1.0])
    assert found.clipped.tolist() == [True, False, False, True, False, False]
    found.losses.sum().backward()
    assert new.grad is not None and new.grad.tolist() == pytest.approx([0, 1.5, -0.5, 0, -1.25, -1.0])
    assert config(algorithm="dapo").highest_gain == 0.28 and config().highest_gain == 0.2


def test_the_divergence_is_k3_and_never_negative():
    new, reference = torch.tensor([-1.0, -2.0]).requires_grad_(), torch.tensor([-1.5, -2.0])
    found = token_losses(new, new.detach(), torch.zeros(2), reference, config(beta=0.5))
    assert found.divergence.tolist() == pytest.approx([math.exp(-0.5) + 0.5 - 1, 0])
    assert found.losses.tolist() == pytest.approx([0.5 * (math.exp(-0.5) + 0.5 - 1), 0])


@pytest.mark.parametrize(
    ("algorithm", "weights", "items"),
    [("grpo", [0.5, 0.1], 2), ("dapo", [1, 1], 12), ("dr_grpo", [0.1, 0.1], 2)],
)
def test_what_a_token_weighs(algorithm, weights, items):
    chosen = config(algorithm=algorithm)
    assert token_weights(torch.tensor([2.0, 10.0]), chosen).tolist() == pytest.approx(weights)
    assert items_of(2, 12, chosen) == items
