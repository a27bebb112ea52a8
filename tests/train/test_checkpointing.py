"""What a step keeps for its backward pass: nothing of what no gradient passes through, and less when asked."""

from collections import Counter

import pytest
import torch
from torch import nn

from medvlm.data_recipes.packing import collate
from medvlm.model.log_probabilities import summed_log_probability
from medvlm.train.assemble import set_trainable
from medvlm.train.checkpointing import checkpoint_activations
from medvlm.train.config import LearningRates, Lora, Source, Stage

ALIGN = {"learning_rate": LearningRates(projector=1e-3)}
ADAPTERS = {"lora": Lora(rank=2, targets=("text.attention",))}
ALL = {"learning_rate": LearningRates(vision=1e-3, projector=1e-3, text=1e-3)}


@pytest.fixture
def pack(processor, conversations):
    return collate([
        (str(n), [processor.render(messages, [processor.patch(v) for v in visuals])])
        for n, (messages, visuals) in enumerate(conversations)
    ])  # fmt: skip


def trained(model: nn.Module, settings: dict) -> nn.Module:
    set_trainable(model.train(), Stage(name="s", mixture=(Source(manifest="none"),), steps=1, **settings))
    return model


def kept_bytes(model: nn.Module, pack) -> tuple[Counter[str], torch.Tensor]:
    """Bytes that autograd keeps, parameters aside, by the component that runs; and the loss."""
    parameters = {p.data_ptr() for p in model.parameters()}
    found: Counter[str] = Counter()
    running = ["else"]
    hooks = []
    for name in ("vision", "projector", "text"):
        module = model.get_submodule(name if name != "text" else "text.model")
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: running.append(name)))
        hooks.append(module.register_forward_hook(lambda *_: running.pop() and None))

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            found[running[-1]] += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = summed_log_probability(model, pack)
    for hook in hooks:
        hook.remove()
    return found, loss


@pytest.mark.parametrize("settings", [ALIGN, ADAPTERS], ids=["align", "adapters"])
def test_a_frozen_encoder_keeps_nothing(model, pack, settings):
    kept, loss = kept_bytes(trained(model, settings), pack)
    assert kept["vision"] == 0
    assert kept["text"] > 0
    loss.backward()
    with_gradient = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == ({"projector"} if settings is ALIGN else {"text"})


def test_a_trained_encoder_keeps_its_activations(model, pack):
    assert kept_bytes(trained(model, ALL), pack)[0]["vision"] > 0


@pytest.mark.parametrize(
    ("setting", "settings", "again"),
    [
        (True, ALL, ["text", "vision"]), (("vision",), ALL, ["vision"]), (("text",), ALL, ["text"]), (False, ALL, []),
        (True, ALIGN, ["text"]), (("vision",), ALIGN, []),
    ],
)  # fmt: skip
def test_the_components_that_are_named_keep_less_and_nothing_else_changes(model, pack, setting, settings, again):
    before, loss = kept_bytes(trained(model, settings), pack)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    assert checkpoint_activations(model, setting) == again
    after, repeated = kept_bytes(model, pack)
    repeated.backward()
    assert torch.equal(loss, repeated)
    for name, p in model.named_parameters():
        assert (p.grad is None) == (name not in gradients), name
        if p.grad is not None:
            assert torch.equal(p.grad, gradients[name]), name
    for component in ("vision", "text"):
        if component in again:
            assert after[component] < before[component] / 2
        else:
            assert after[component] == before[component]
