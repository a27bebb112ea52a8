"""Compiled parts compute what they computed before, whatever the packs and beside adapters and checkpointing."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from medvlm.data_recipes.packing import collate
from medvlm.data_recipes.typed_yaml import BadConfig
from medvlm.model.log_probabilities import summed_log_probability
from medvlm.train import compiling
from medvlm.train.assemble import set_trainable
from medvlm.train.checkpointing import checkpoint_activations
from medvlm.train.compiling import check_compiler, compile_parts, parts_of
from medvlm.train.config import EngineConfig, LearningRates, Lora, Source, Stage

CPU = torch.device("cpu")
ALL = LearningRates(vision=1e-3, projector=1e-3, text=1e-3)
ADAPTERS = Lora(rank=2, targets=("vision.mlp", "text.attention", "text.mlp"))


@pytest.fixture
def packs(processor, conversations):
    """Packs with different numbers of samples and visuals."""
    made = [
        (str(n), [processor.render(messages, [processor.patch(v) for v in visuals])])
        for n, (messages, visuals) in enumerate(conversations)
    ]
    return [collate(made), collate(made[:1]), collate(made[1:]), collate(made[::-1] * 2)]


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def gradients(model, packs) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    found = []
    for pack in packs:
        model.zero_grad(set_to_none=True)
        loss = summed_log_probability(model, pack)
        loss.backward()
        found.append((loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    return found


def assert_equal(found, expected) -> None:
    for (loss, of), (right, right_of) in zip(found, expected, strict=True):
        torch.testing.assert_close(loss, right, rtol=1e-5, atol=1e-5)
        assert of.keys() == right_of.keys()
        for name, gradient in of.items():
            scale = float(right_of[name].abs().max())
            torch.testing.assert_close(gradient, right_of[name], rtol=1e-4, atol=1e-5 * scale + 1e-8, msg=name)


@pytest.mark.parametrize(("adapted", "again"), [(False, False), (True, True)], ids=["full", "adapters-again"])
def test_gradients_stay_what_they_were_and_no_pack_is_compiled_anew(model, packs, adapted, again):
    settings = {"lora": ADAPTERS} if adapted else {"learning_rate": ALL}
    set_trainable(model.train(), Stage(name="s", mixture=(Source(manifest="none"),), steps=1, **settings))
    if again:
        checkpoint_activations(model, True)
    expected, names = gradients(model, packs), list(model.state_dict())
    counter = CompileCounterWithBackend("aot_eager")
    assert compile_parts(model, ("vision", "text"), CPU, backend=counter) == {"text": 6, "vision": 2}
    found = gradients(model, packs[:1])
    # Once for all layers: the encoder's feed-forward block, the decoder's, and its norms. Of an encoder with adapters
    # the first layer reads what needs no gradient, which is another program.
    programs = 4 if adapted else 3
    assert counter.frame_count == programs
    found += gradients(model, packs[1:])
    assert counter.frame_count == programs
    assert_equal(found, expected)
    assert list(model.state_dict()) == names


@pytest.mark.slow
def test_inductor_computes_the_same(model, packs):
    try:
        check_compiler(CPU)
    except ValueError as error:
        pytest.skip(str(error))
    model.train()
    expected = gradients(model, packs[:1])
    compile_parts(model, ("vision",), CPU)  # one program forward and one backward: each is a call of the compiler
    assert_equal(gradients(model, packs[:1]), expected)


def test_what_is_compiled_holds_no_attention(model):
    assert parts_of(model.vision.layers[0]) == [model.vision.layers[0].mlp]
    layer = model.text.model.layers[0]
    assert parts_of(layer) == [layer.mlp, layer.input_layernorm, layer.post_attention_layernorm]


def test_without_a_compiler_it_is_refused_at_the_start(model, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(ValueError, match=r"C\+\+ compiler on cpu"):
        compile_parts(model, ("text",), CPU)


def test_a_component_without_such_parts_is_refused(model, monkeypatch):
    monkeypatch.setattr(compiling, "units", lambda model: [])
    with pytest.raises(ValueError, match=r"engine\.compile names text"):
        compile_parts(model, ("text",), CPU, backend="aot_eager")


@pytest.mark.parametrize("settings", [{"kind": "fsdp"}, {"kind": "deepspeed", "zero_stage": 3}])
def test_divided_weights_are_refused(settings):
    with pytest.raises(BadConfig, match=r"engine\.compile"):
        EngineConfig(compile=("text",), **settings)
