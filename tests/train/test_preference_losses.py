"""Preference losses against formulas written here, and against the code of TRL's trainers on the same numbers."""

import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from medvlm.data_recipes.typed_yaml import BadConfig
from medvlm.train.objectives.preference_losses import LOSSES, STEP_WIDE, Pairs, StepValues, preference_loss, rewards
from medvlm.train.settings.preference import PreferenceConfig

WHY = "bash scripts/test_extras.sh runs these tests"
LENGTHS = torch.tensor([[3, 8], [12, 5], [7, 7], [1, 9], [20, 2], [6, 4]])
B = len(LENGTHS)
STEP = StepValues(reward=-0.13, divergence=0.42)
CONFIGS = {
    "sigmoid": PreferenceConfig(beta=0.3),
    "sigmoid, smoothed": PreferenceConfig(beta=0.3, label_smoothing=0.2),
    "sigmoid_norm": PreferenceConfig(loss="sigmoid_norm", beta=2.0),
    "robust": PreferenceConfig(loss="robust", beta=0.3, label_smoothing=0.2),
    "ipo": PreferenceConfig(loss="ipo", beta=0.3),
    "hinge": PreferenceConfig(loss="hinge", beta=0.3),
    "bco": PreferenceConfig(loss="bco", beta=0.3),
    "bco_pair": PreferenceConfig(loss="bco_pair", beta=0.3),
    "kto": PreferenceConfig(loss="kto", beta=0.3, desirable_weight=1.3, undesirable_weight=0.7),
    "orpo": PreferenceConfig(loss="orpo", beta=0.3),
    "simpo": PreferenceConfig(loss="simpo", beta=2.0, margin=0.8, label_smoothing=0.1),
    "mpo": PreferenceConfig(loss={"sigmoid": 0.8, "bco_pair": 0.2}, supervised_weight=1.0),
}


def token_log_probabilities(seed: int) -> list[list[torch.Tensor]]:
    """Of the tokens of every answer: (chosen, rejected) of each pair; some answers are nearly certain."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([1.5, 0.05, 3.0, 0.4, 1.0, 0.01])
    return [
        [-scale[pair] * torch.rand(int(LENGTHS[pair, side]), generator=generator) for side in range(2)]
        for pair in range(B)
    ]


POLICY, REFERENCE = token_log_probabilities(1), token_log_probabilities(2)


def sums(tokens, dtype=torch.float32) -> torch.Tensor:
    return torch.stack([torch.stack([side.to(dtype).sum() for side in pair]) for pair in tokens])


def pairs_of(config: PreferenceConfig, dtype=torch.float32) -> Pairs:
    reference = sums(REFERENCE, dtype) if config.needs_reference else None
    return Pairs(policy=sums(POLICY, dtype), reference=reference, lengths=LENGTHS.to(dtype))


def test_every_loss_is_compared():
    assert {name for config in CONFIGS.values() for name in config.weights} == set(LOSSES)


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > -700 else x


def written(name: str, config: PreferenceConfig, policy, reference, lengths) -> float:
    """The formula of a paper for one pair, in plain Python."""
    b, e = config.beta, config.label_smoothing
    gain = [policy[0] - reference[0], policy[1] - reference[1]]
    margin = gain[0] - gain[1]
    mean = [policy[0] / lengths[0], policy[1] / lengths[1]]
    mean_margin = gain[0] / lengths[0] - gain[1] / lengths[1]

    def bce(shift: float) -> float:
        return -log_sigmoid(b * gain[0] - shift) - log_sigmoid(-(b * gain[1] - shift))

    def odds(m: float) -> float:
        return math.exp(m) / (1 - math.exp(m))

    def value(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    ahead = b * (mean[0] - mean[1]) - config.margin
    desirable, undesirable = config.desirable_weight, config.undesirable_weight
    return {
        "sigmoid": -(1 - e) * log_sigmoid(b * margin) - e * log_sigmoid(-b * margin),
        "robust": (-(1 - e) * log_sigmoid(b * margin) + e * log_sigmoid(-b * margin)) / (1 - 2 * e),
        "sigmoid_norm": -log_sigmoid(b * mean_margin),
        "ipo": (mean_margin - 1 / (2 * b)) ** 2,
        "hinge": max(0.0, 1 - b * margin),
        "bco": bce(STEP.reward),
        "bco_pair": bce(0.0),
        "kto": (
            desirable * (1 - value(b * (gain[0] - STEP.divergence)))
            + undesirable * (1 - value(b * (STEP.divergence - gain[1])))
        )
        / 2,
        "orpo": -mean[0] - b * log_sigmoid(math.log(odds(mean[0]) / odds(mean[1]))),
        "simpo": -(1 - e) * log_sigmoid(ahead) - e * log_sigmoid(-ahead),
    }[name]


@pytest.mark.parametrize("name", CONFIGS)
def test_losses_are_the_formulas_of_their_papers(name):
    config = CONFIGS[name]
    found = preference_loss(pairs_of(config, torch.float64), config, STEP).tolist()
    policy, reference = sums(POLICY, torch.float64).tolist(), sums(REFERENCE, torch.float64).tolist()
    for number in range(B):
        case = (policy[number], reference[number], LENGTHS[number].tolist())
        expected = sum(weight * written(loss, config, *case) for loss, weight in config.weights.items())
        expected -= config.supervised_weight * policy[number][0] / int(LENGTHS[number, 0])
        assert found[number] == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", CONFIGS)
def test_losses_push_the_chosen_answer_up_and_the_rejected_down(name):
    config = CONFIGS[name]
    policy = sums(POLICY, torch.float64).requires_grad_()
    pairs = Pairs(policy=policy, reference=sums(REFERENCE, torch.float64), lengths=LENGTHS.double())
    preference_loss(pairs, config, STEP).sum().backward()
    if "ipo" in config.weights:  # a target, not a direction
        return
    assert (policy.grad[:, 0] <= 0).all() and (policy.grad[:, 1] >= 0).all() and policy.grad.abs().sum() > 0.1


@pytest.mark.parametrize("name", CONFIGS)
def test_extreme_log_probabilities_leave_a_finite_loss_and_gradient(name):
    config = CONFIGS[name]
    policy = torch.tensor([[0.0, -3000.0], [-3000.0, 0.0], [-1e-9, -1e-9]], requires_grad=True)
    pairs = Pairs(policy=policy, reference=torch.zeros(3, 2), lengths=torch.ones(3, 2))
    total = preference_loss(pairs, config, STEP).sum()
    total.backward()
    assert torch.isfinite(total) and torch.isfinite(policy.grad).all()


def test_rewards_are_relative_to_the_reference_where_there_is_one():
    pairs = pairs_of(CONFIGS["sigmoid"])
    torch.testing.assert_close(rewards(pairs, CONFIGS["sigmoid"]), 0.3 * (sums(POLICY) - sums(REFERENCE)))
    torch.testing.assert_close(rewards(pairs_of(CONFIGS["simpo"]), CONFIGS["simpo"]), 2 * sums(POLICY) / LENGTHS)


def test_a_loss_with_a_reference_says_that_it_is_missing():
    pairs = Pairs(policy=sums(POLICY), reference=None, lengths=LENGTHS)
    with pytest.raises(ValueError, match="compares with a reference model"):
        preference_loss(pairs, CONFIGS["ipo"], STEP)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": {"sigmod": 1.0}}, "unknown preference loss 'sigmod' \\(did you mean 'sigmoid'"),
        ({"loss": {}}, "empty mapping"),
        ({"loss": {"sigmoid": 0.0}}, "weight of the loss 'sigmoid' is 0"),
        ({"margin": 1.0}, "'margin' is set, but no loss of sigmoid reads it"),
        ({"loss": "ipo", "label_smoothing": 0.1}, "'label_smoothing' is set, but no loss of ipo"),
        ({"loss": "bco", "desirable_weight": 2.0}, "'desirable_weight' is set"),
        ({"loss": "kto", "undesirable_weight": -1.0}, "undesirable_weight is -1"),
        ({"beta": 0.0}, "beta is 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(BadConfig, match=message):
        PreferenceConfig(**settings)


# -- TRL's own code on the same log-probabilities ------------------------------------------------------------------


class _Same:
    """One process."""

    device = torch.device("cpu")

    @staticmethod
    def gather_for_metrics(values):
        return values

    gather = gather_for_metrics


def laid_out(tokens):
    """Log-probabilities (2B, L - 1) of the tokens after the first, and the mask (2B, L) of the answers.

    Rows are chosen of all pairs, then rejected; a prompt of two tokens stands before each answer.
    """
    rows = [pair[side] for side in range(2) for pair in tokens]
    width = 2 + max(len(row) for row in rows)
    values, mask = torch.zeros(len(rows), width - 1), torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        values[number, 1 : 1 + len(row)] = row
        mask[number, 2 : 2 + len(row)] = 1
    return values, mask


class _Outputs(torch.nn.Module):
    """A model whose log-probabilities are given."""

    def forward(self, log_probs, **_):
        zeros = torch.zeros_like(log_probs)
        return SimpleNamespace(log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())


def dpo_trainer_loss(config: PreferenceConfig, names, weights, *, shift: float = 0.0, only: int | None = None) -> float:
    trl = pytest.importorskip("trl", reason=WHY)
    policy, reference = (POLICY, REFERENCE) if only is None else (POLICY[only : only + 1], REFERENCE[only : only + 1])
    log_probs, mask = laid_out(policy)
    known = sums(reference) + shift / config.beta
    stub = SimpleNamespace(
        model=_Outputs().train(), accelerator=_Same(), aux_loss_enabled=False, ld_alpha=None, precompute_ref_logps=True,
        f_divergence_type="reverse_kl", loss_types=names, loss_weights=weights, beta=config.beta,
        label_smoothing=config.label_smoothing, use_weighting=False, _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    inputs = {
        "input_ids": torch.zeros_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask,
        "log_probs": log_probs, "ref_chosen_logps": known[:, 0], "ref_rejected_logps": known[:, 1],
    }  # fmt: skip
    return float(trl.DPOTrainer._compute_loss(stub, stub.model, inputs, False))


@pytest.mark.parametrize("name", ["sigmoid", "sigmoid_norm", "robust", "ipo", "hinge", "bco_pair"])
def test_losses_are_those_of_trls_dpo_trainer(name):
    config = CONFIGS[name]
    ours = float(preference_loss(pairs_of(config), config, STEP).mean())
    assert ours == pytest.approx(dpo_trainer_loss(config, [name], [1.0]), rel=1e-6, abs=1e-6)


def test_the_shift_of_bco_is_a_reference_that_is_shifted():
    """TRL 1.16 has no shift; shifted rewards are rewards against a shifted reference."""
    config = CONFIGS["bco"]
    ours = float(preference_loss(pairs_of(config), config, STEP).mean())
    assert ours == pytest.approx(dpo_trainer_loss(config, ["bco_pair"], [1.0], shift=STEP.reward), rel=1e-6, abs=1e-6)


def test_mpo_is_that_of_trl_on_each_pair():
    """TRL's supervised part is a mean over all tokens of a batch, the paper's over those of each answer."""
    config = CONFIGS["mpo"]
    ours = preference_loss(pairs_of(config), config, STEP)
    names = ["sigmoid", "bco_pair", "sft"]
    for number in range(B):
        theirs = dpo_trainer_loss(config, names, [0.8, 0.2, 1.0], only=number)
        assert float(ours[number]) == pytest.approx(theirs, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("divergence", [0.42, -0.5], ids=["above 0", "below 0"])
def test_kto_is_that_of_trl(divergence):
    trl = pytest.importorskip("trl", reason=WHY)
    config = CONFIGS["kto"]
    log_probs, mask = laid_out(POLICY)
    chosen = torch.arange(2 * B) < B
    unrelated = torch.linspace(-2, 2, 2 * B) + divergence
    stub = SimpleNamespace(
        model=_Outputs().train(), accelerator=_Same(), aux_loss_enabled=False, precompute_ref_logps=True,
        calculate_KL=True, _compute_kl_logps=lambda model, batch: unrelated, loss_type="kto", beta=config.beta,
        desirable_weight=config.desirable_weight, undesirable_weight=config.undesirable_weight,
        _metrics=defaultdict(lambda: defaultdict(list)), _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    inputs = {
        "input_ids": torch.zeros_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask,
        "log_probs": log_probs, "label": chosen, "ref_logps": sums(REFERENCE).T.flatten(),
        "ref_KL_logps": torch.zeros(2 * B),
    }  # fmt: skip
    theirs = float(trl.KTOTrainer._compute_loss(stub, stub.model, inputs, False))
    step = StepValues(divergence=max(float(unrelated.mean()), 0.0))
    ours = float(preference_loss(pairs_of(config), config, step).mean())
    assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6)


def test_orpo_is_that_of_trl():
    """The odds ratio by TRL's function; the supervised part is given to TRL, which takes it over prompts too."""
    pytest.importorskip("trl", reason=WHY)
    from trl.experimental.orpo import ORPOTrainer

    config = CONFIGS["orpo"]
    means = sums(POLICY) / LENGTHS
    logits = torch.zeros(1)
    stub = SimpleNamespace(
        beta=config.beta, accelerator=_Same(), aux_loss_enabled=False,
        concatenated_forward=lambda model, batch: (means[:, 0], means[:, 1], logits, logits, -means[:, 0].mean()),
    )  # fmt: skip
    stub.odds_ratio_loss = lambda *arguments: ORPOTrainer.odds_ratio_loss(stub, *arguments)
    theirs, _ = ORPOTrainer.get_batch_loss_metrics(stub, None, {})
    ours = float(preference_loss(pairs_of(config), config, STEP).mean())
    assert ours == pytest.approx(float(theirs), rel=1e-6, abs=1e-6)


def test_simpo_is_that_of_trl():
    pytest.importorskip("trl", reason=WHY)
    from trl.experimental.cpo import CPOTrainer

    config = CONFIGS["simpo"]
    means = sums(POLICY) / LENGTHS
    stub = SimpleNamespace(
        alpha=0.0, loss_type="simpo", simpo_gamma=config.margin, beta=config.beta, accelerator=_Same(),
        label_smoothing=config.label_smoothing,
    )  # fmt: skip
    theirs, _, _ = CPOTrainer.cpo_loss(stub, means[:, 0], means[:, 1])
    torch.testing.assert_close(preference_loss(pairs_of(config), config, STEP), theirs, rtol=1e-6, atol=1e-6)


def test_what_couples_pairs_is_what_reads_the_step():
    for name, config in CONFIGS.items():
        with_step = preference_loss(pairs_of(config), config, STEP)
        without = preference_loss(pairs_of(config), config, StepValues())
        assert torch.equal(with_step, without) != bool(STEP_WIDE & set(config.weights)), name
