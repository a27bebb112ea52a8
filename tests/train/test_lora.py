"""Adapters: where they are put, that nothing else changes, and that merging keeps every logit."""

import pytest
import torch
from conftest import a_chat, a_volume, an_image, tiny_model
from peft.tuners.lora import LoraLayer

from medvlm.data_recipes.packing import collate
from medvlm.model import load_checkpoint, save_checkpoint
from medvlm.train.config import Lora
from medvlm.train.lora import adapters_off, add_lora, lora_modules, merge_lora

EVERYWHERE = ("vision.attention", "vision.mlp", "text.attention", "text.mlp")


@pytest.fixture
def batch(processor):
    rows = [
        processor.render(a_chat(["image"], "Is there a nodule?", "yes"), [processor.patch(an_image(1))]),
        processor.render(a_chat(["volume"], "Which side?", "left"), [processor.patch(a_volume(2))]),
    ]
    return collate([(str(n), [row]) for n, row in enumerate(rows)])


def logits(model, batch):
    with torch.no_grad():
        return model(**batch.model_inputs()).logits


def adapted(model, seed=3, **lora):
    """The model with adapters that do something: B starts as zero, so it is set."""
    names = add_lora(model, Lora(**{"rank": 4, "alpha": 8, "targets": EVERYWHERE, **lora}))
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
        if "magnitude" in name:
            with torch.no_grad():
                parameter.mul_(1.1)
    return names


def test_targets_are_resolved_to_whole_names(model):
    assert lora_modules(model, ("text.attention",)) == [
        f"text.model.layers.{n}.self_attn.{p}_proj" for n in (0, 1) for p in "qkvo"
    ]
    assert lora_modules(model, ("vision.mlp",)) == [
        f"vision.layers.{n}.mlp.{p}" for n in (0, 1) for p in ("up", "down")
    ]
    both = lora_modules(model, ("vision.attention", "text.mlp", "vision.attention"))
    assert len(both) == len(set(both)) == 2 * 2 + 2 * 3


def test_a_target_that_matches_nothing_names_what_there_is(processor):
    with pytest.raises(ValueError, match=r"'projector\.mlp' matches no linear layer.*'projector\.up'.*choose another"):
        lora_modules(tiny_model(processor), ("projector.mlp",))
    # GPT-2 calls its layers by other names, and they are Conv1D, not Linear.
    gpt2 = tiny_model(
        processor, model_type="gpt2", n_embd=64, n_layer=2, n_head=2, hidden_size=64, num_hidden_layers=2,
        num_attention_heads=2,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"'text\.mlp' matches no linear layer of the model; 'text' has"):
        add_lora(gpt2, Lora(targets=("text.mlp",)))


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("trainable", [("projector",), ()])
def test_only_adapters_are_added(model, dora, trainable):
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.split(".")[0] in trainable)
    names = add_lora(model, Lora(rank=4, targets=("text.attention",), dora=dora))
    per_layer = 3 if dora else 2
    new = [name for name, _ in model.named_parameters() if "lora_" in name]
    assert len(new) == per_layer * len(names)
    for name, parameter in model.named_parameters():
        if name in new:
            assert parameter.requires_grad
        else:
            original = name.replace(".base_layer.", ".")
            assert torch.equal(parameter, before.pop(original))
            assert parameter.requires_grad == (name.split(".")[0] in trainable), name
    assert not before


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_off_is_the_base_and_fresh_adapters_change_nothing(model, batch, dora):
    base = logits(model, batch)
    add_lora(model, Lora(rank=4, targets=EVERYWHERE, dora=dora))
    torch.testing.assert_close(logits(model, batch), base, atol=1e-4, rtol=0)
    adapted_names = [name for name, p in model.named_parameters() if "lora_B" in name]
    with torch.no_grad():
        for name in adapted_names:
            model.get_parameter(name).add_(0.1)
    assert (logits(model, batch) - base).abs().max() > 0.1
    with adapters_off(model):
        assert torch.equal(logits(model, batch), base)


@pytest.mark.parametrize("dora", [False, True])
def test_merged_logits_are_the_adapters_logits(processor, model, batch, tmp_path, dora):
    base = logits(model, batch)
    names = adapted(model, dora=dora)
    with_adapters = logits(model, batch)
    assert (with_adapters - base).abs().max() > 0.1
    before = {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" not in n}
    assert merge_lora(model.train(), batch) < 1e-5
    assert model.training and not any(isinstance(module, LoraLayer) for module in model.modules())
    model.eval()
    torch.testing.assert_close(logits(model, batch), with_adapters, atol=1e-4, rtol=0)
    for name, parameter in model.named_parameters():
        layer = name.rpartition(".")[0]
        old = before[f"{layer}.base_layer.weight" if layer in names and name.endswith("weight") else name.replace(
            layer, f"{layer}.base_layer") if layer in names else name]  # fmt: skip
        assert torch.equal(parameter, old) == (not (layer in names and name.endswith("weight"))), name
    save_checkpoint(tmp_path / "merged", model, processor)
    loaded, _ = load_checkpoint(tmp_path / "merged")
    assert torch.equal(logits(loaded, batch), logits(model, batch))


def test_merging_is_refused_when_logits_move(model, batch):
    adapted(model)
    layer = next(module for module in model.modules() if isinstance(module, LoraLayer))
    merge = layer.merge

    def merge_and_damage(**options):
        merge(**options)
        with torch.no_grad():
            layer.get_base_layer().weight.mul_(1.5)

    layer.merge = merge_and_damage  # a fault planted into the real model
    with pytest.raises(ValueError, match=r"merging the adapters moved the logits by .*more than 1e-03"):
        merge_lora(model, batch)


def test_merging_is_refused_when_logits_are_not_numbers(model, batch):
    adapted(model)
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "lora_B" in name)[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"NaNs detected in the merged weights|moved the logits by nan"):
        merge_lora(model, batch)
