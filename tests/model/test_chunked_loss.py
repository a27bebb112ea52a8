"""The loss in parts: values and gradients of the full logits, for every kind of output layer."""

import pytest
import torch
from conftest import tiny_model
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from medvlm.data_recipes.packing import collate
from medvlm.model import chunked_loss
from medvlm.model.chunked_loss import log_probabilities, weighted_sum
from medvlm.model.language_head import LanguageHead, head_of
from medvlm.model.log_probabilities import (
    summed_log_probability,
    supervised_positions,
    token_log_probabilities,
    token_log_probabilities_and_entropies,
)

ROWS, WIDTH, WORDS = 37, 24, 97


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """So that a few rows make several parts."""
    monkeypatch.setattr(chunked_loss, "FEWEST_ROWS", 7)


def a_head(kind: str, dtype: torch.dtype) -> LanguageHead:
    torch.manual_seed(0)
    module: nn.Module = nn.Linear(WIDTH, WORDS, bias=kind == "bias")
    if kind == "adapters":
        wrapper = nn.ModuleDict({"head": module})
        inject_adapter_in_model(LoraConfig(r=3, target_modules=["head"], init_lora_weights=False), wrapper)
        module = wrapper["head"]
    module.to(dtype)
    if kind == "frozen":
        module.requires_grad_(False)
    if kind == "capped":
        return LanguageHead(logits=lambda x: 5 * torch.tanh(module(x) / 5), module=module, linear=False)
    return LanguageHead(logits=module, module=module, linear=True)


def whole(head: LanguageHead, hidden: torch.Tensor, targets: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    return -F.cross_entropy(head.logits(hidden).float() / temperature, targets, reduction="none")


def gradients(head: LanguageHead, hidden: torch.Tensor, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, [hidden, *head.trained]))


KINDS = ["frozen", "trained", "bias", "adapters", "capped"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_any_loss_of_log_probabilities_has_the_gradient_of_the_full_logits(kind, temperature):
    head = a_head(kind, torch.float32)
    hidden = torch.randn(ROWS, WIDTH, requires_grad=True)
    targets = torch.randint(0, WORDS, (ROWS,))

    def of(values: torch.Tensor) -> torch.Tensor:  # no sum: every token gets another gradient from above
        return torch.sigmoid(values[::2].sum() / 9 - values[1::2].sum() / 9) + (values.exp() ** 2).sum()

    values, entropies = log_probabilities(head, hidden, targets, temperature=temperature, with_entropy=True)
    right = whole(head, hidden, targets, temperature)
    torch.testing.assert_close(values, right, atol=1e-6, rtol=1e-6)
    for ours, theirs in zip(gradients(head, hidden, of(values)), gradients(head, hidden, of(right)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert not entropies.requires_grad
    distribution = torch.distributions.Categorical(logits=head.logits(hidden) / temperature)
    torch.testing.assert_close(entropies, distribution.entropy(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_weighted_sum_has_the_gradient_of_the_full_logits(kind):
    head = a_head(kind, torch.float32)
    hidden = torch.randn(ROWS, WIDTH, requires_grad=True)
    targets, weights = torch.randint(0, WORDS, (ROWS,)), torch.rand(ROWS)
    loss = weighted_sum(head, hidden, targets, weights) * 0.3
    right = (whole(head, hidden, targets) * weights).sum() * 0.3
    torch.testing.assert_close(loss, right, atol=1e-6, rtol=1e-6)
    for ours, theirs in zip(gradients(head, hidden, loss), gradients(head, hidden, right), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["frozen", "trained", "adapters"])
def test_in_bf16_it_is_as_near_to_fp32_as_the_full_logits_are(kind):
    head, exact = a_head(kind, torch.bfloat16), a_head(kind, torch.float32)
    hidden = torch.randn(ROWS, WIDTH).bfloat16().requires_grad_()
    for ours, theirs in zip(head.module.parameters(), exact.module.parameters(), strict=True):
        theirs.data.copy_(ours)
    precise = hidden.detach().float().requires_grad_()
    targets, weights = torch.randint(0, WORDS, (ROWS,)), torch.rand(ROWS)
    right = gradients(exact, precise, (whole(exact, precise, targets) * weights).sum())
    usual = gradients(head, hidden, (whole(head, hidden, targets) * weights).sum())
    one = gradients(head, hidden, weighted_sum(head, hidden, targets, weights))
    two = gradients(head, hidden, (log_probabilities(head, hidden, targets)[0] * weights).sum())
    for made in (one, two):
        for ours, theirs, exactly in zip(made, usual, right, strict=True):
            assert ours.dtype == torch.bfloat16
            error = float((ours.float() - exactly).norm() / exactly.norm())
            assert error < max(1.3 * float((theirs.float() - exactly).norm() / exactly.norm()), 4e-3)


def test_of_no_tokens_every_trained_parameter_has_a_gradient_of_zero():
    """A rank whose samples could not be read must still take part in the exchange of gradients."""
    head = a_head("trained", torch.float32)
    hidden, targets = torch.randn(0, WIDTH, requires_grad=True), torch.zeros(0, dtype=torch.int64)
    for loss in (
        weighted_sum(head, hidden, targets, torch.zeros(0)),
        log_probabilities(head, hidden, targets)[0].sum(),
    ):
        assert float(loss.detach()) == 0
        assert [float(gradient.abs().sum()) for gradient in gradients(head, hidden, loss)] == [0, 0]


def test_a_second_backward_pass_is_refused():
    head = a_head("trained", torch.float32)
    hidden, targets = torch.randn(4, WIDTH, requires_grad=True), torch.zeros(4, dtype=torch.int64)
    loss = weighted_sum(head, hidden, targets, torch.ones(4))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        loss.backward()


SMALL = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
    "intermediate_size": 48,
}  # fmt: skip
FAMILIES = {
    "qwen3": ("linear", {}),
    "llama": ("linear", {"tie_word_embeddings": True}),
    "phi3": ("linear", {}),
    "gemma3_text": ("linear", {}),
    "gemma2": ("tail", {"final_logit_softcapping": 3.0}),
    "cohere": ("tail", {"logit_scale": 0.3}),
    "granite": ("tail", {"logits_scaling": 4.0}),
    "qwen3_moe": ("linear", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_language_model_scores_as_by_its_own_forward_pass(family, processor, conversations):
    kind, extra = FAMILIES[family]
    model = tiny_model(processor, model_type=family, **SMALL, **extra).train()
    pack = collate(
        [
            (f"s{i}", [processor.render(messages, [processor.patch(v) for v in visuals])])
            for i, (messages, visuals) in enumerate(conversations)
        ]
    )
    head = model.language_head()
    assert head is not None and head.linear == (kind == "linear")
    where = supervised_positions(pack)
    logits = model(**pack.model_inputs(), logits_to_keep=where).logits[0]
    right = F.cross_entropy(logits, pack.targets[where], reduction="sum")
    right.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    for loss in (lambda: -summed_log_probability(model, pack), lambda: -token_log_probabilities(model, pack)[0].sum()):
        model.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        torch.testing.assert_close(value, right, atol=1e-5, rtol=1e-6)
        assert {name for name, p in model.named_parameters() if p.grad is not None} == expected.keys()
        for name, parameter in model.named_parameters():
            if name in expected:
                torch.testing.assert_close(parameter.grad, expected[name], atol=2e-5, rtol=1e-4, msg=name)
    scored, entropies, positions = token_log_probabilities_and_entropies(model, pack)
    assert scored.shape == entropies.shape == positions.shape


def test_a_model_whose_output_layer_cannot_be_told_apart_falls_back_and_says_so(caplog):
    text = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3", vocab_size=50, **SMALL))
    forward = text.forward

    def asks_more(*args, **kwargs):
        output = forward(*args, **kwargs)
        return output if text.model.layers is not None else None  # reads its decoder: a stand-in has none

    text.forward = asks_more
    assert head_of(text) is None
    assert "cannot be told apart" in caplog.text
    caplog.clear()
    assert head_of(text) is None and not caplog.text, "once"
