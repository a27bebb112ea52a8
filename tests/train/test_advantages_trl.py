"""Advantages and losses against TRL's own code on the same log-probabilities."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("trl", reason="bash scripts/test_extras.sh runs these tests")

from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import nanstd

import medvlm.model  # noqa: F401  (before transformers' vision code: see model.vision_libraries)
from medvlm.train.config import ReinforcementConfig
from medvlm.train.objectives.advantages import advantages_of, items_of, token_losses, token_weights

ANSWERS, ROOM = 6, 9


def numbers() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([9, 1, 4, 7, 2, 9])
    new = -torch.rand(ANSWERS, ROOM, generator=generator, dtype=torch.float64) * 3
    return {
        "new": new,
        "old": new + 0.4 * torch.randn(ANSWERS, ROOM, generator=generator, dtype=torch.float64),
        "reference": new + 0.3 * torch.randn(ANSWERS, ROOM, generator=generator, dtype=torch.float64),
        "advantages": torch.randn(ANSWERS, generator=generator, dtype=torch.float64),
        "mask": (torch.arange(ROOM) < lengths[:, None]).double(),
    }


def of_trl(config: ReinforcementConfig, given: dict[str, torch.Tensor]) -> tuple[float, torch.Tensor, dict]:
    """Loss and gradient by GRPOTrainer._compute_loss, which is handed the log-probabilities instead of a model."""
    new = given["new"].clone().requires_grad_()
    accelerator = SimpleNamespace(num_processes=1, reduce=lambda x, reduction: x, gather=lambda x: x)
    trainer = SimpleNamespace(
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, importance_sampling_level="token", beta=config.beta,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        loss_type=config.algorithm, epsilon_low=config.clip_low, epsilon_high=config.highest_gain, use_vllm=False,
        current_gradient_accumulation_steps=1, accelerator=accelerator, aux_loss_enabled=False,
        max_completion_length=config.max_new_tokens, _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)}, model=SimpleNamespace(training=True),
        _get_per_token_logps_and_entropies=lambda *a, **k: (new, torch.zeros_like(new), None),
    )  # fmt: skip
    prompt = torch.ones(ANSWERS, 2, dtype=torch.int64)
    inputs = {
        "prompt_ids": prompt, "prompt_mask": prompt, "completion_ids": torch.ones(ANSWERS, ROOM, dtype=torch.int64),
        "completion_mask": given["mask"], "advantages": given["advantages"], "old_per_token_logps": given["old"],
        "ref_per_token_logps": given["reference"], "num_items_in_batch": given["mask"].sum(),
    }  # fmt: skip
    loss = GRPOTrainer._compute_loss(trainer, None, inputs)
    loss.backward()
    return float(loss.detach()), new.grad, trainer._metrics["train"]


def ours(config: ReinforcementConfig, given: dict[str, torch.Tensor]):
    new, here = given["new"].clone().requires_grad_(), given["mask"].bool()
    answer = torch.arange(ANSWERS)[:, None].expand(-1, ROOM)[here]
    reference = given["reference"][here] if config.beta else None
    found = token_losses(new[here], given["old"][here], given["advantages"][answer], reference, config)
    weights = token_weights(given["mask"].sum(dim=1), config)[answer]
    loss = (found.losses * weights).sum() / items_of(ANSWERS, int(here.sum()), config)
    loss.backward()
    return float(loss.detach()), new.grad, found


@pytest.mark.parametrize("algorithm", ["grpo", "dapo", "dr_grpo"])
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_loss_gradient_and_clip_are_those_of_trl(algorithm, beta):
    config = ReinforcementConfig(
        algorithm=algorithm, beta=beta, group_size=3, max_new_tokens=ROOM, clip_low=0.2, clip_high=0.3
    )
    given = numbers()
    expected, gradient, metrics = of_trl(config, given)
    loss, found, tokens = ours(config, given)
    assert loss == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(found, gradient, atol=1e-6, rtol=0)
    clipped = float(tokens.clipped.double().mean())
    assert clipped > 0 and clipped == pytest.approx(metrics["clip_ratio/region_mean"][0])
    if beta:
        assert float(tokens.divergence.mean()) == pytest.approx(metrics["kl"][0])


def test_advantages_are_those_of_trl():
    rewards = torch.rand(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    expected = centred / (nanstd(rewards, dim=1)[:, None] + 1e-4)
    torch.testing.assert_close(advantages_of(rewards, ReinforcementConfig()), expected, atol=1e-6, rtol=0)
