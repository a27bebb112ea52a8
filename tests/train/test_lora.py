"""Adapters: where they are put, that nothing else changes, and that merging keeps every logit."""

import pytest
import torch
from conftest import a_chat, a_volume, an_image, tiny_model
from decoder_families import FAMILIES
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from medvlm.data_recipes.packing import collate
from medvlm.model import load_checkpoint, save_checkpoint
from medvlm.train.adapter import load_adapter, save_adapter
from medvlm.train.lora import adapters_off, add_lora, lora_targets, merge_lora
from medvlm.train.quantize import Linear4bit, load_trained
from medvlm.train.settings.lora import Lora

NEEDS_QLORA = "bitsandbytes is not installed; bash scripts/test_extras.sh runs these tests"

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
    names = add_lora(model, Lora(**{"rank": 4, "alpha": 8, "targets": EVERYWHERE, **lora})).modules
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
        if "magnitude" in name:
            with torch.no_grad():
                parameter.mul_(1.1)
    return names


def test_targets_are_resolved_to_whole_names(model):
    def modules(*targets):
        assert lora_targets(model, targets).parameters == ()
        return list(lora_targets(model, targets).modules)

    assert modules("text.attention") == [f"text.model.layers.{n}.self_attn.{p}_proj" for n in (0, 1) for p in "qkvo"]
    assert modules("vision.mlp") == [f"vision.layers.{n}.mlp.{p}" for n in (0, 1) for p in ("up", "down")]
    both = modules("vision.attention", "text.mlp", "vision.attention")
    assert len(both) == len(set(both)) == 2 * 2 + 2 * 3
    assert modules("projector.all") == ["projector.up", "projector.down"]
    assert len(modules("text.all", "text.mlp")) == 2 * 7, "every layer once, and not the output layer"


def test_a_target_that_matches_nothing_names_what_there_is(processor):
    with pytest.raises(ValueError, match=r"'projector\.mlp' matches no linear layer.*'projector\.up'.*choose another"):
        lora_targets(tiny_model(processor), ("projector.mlp",))
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
    names = add_lora(model, Lora(rank=4, targets=("text.attention",), dora=dora)).modules
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


def test_a_layer_that_gives_zero_is_merged_and_dora_on_it_is_refused(model, batch):
    with torch.no_grad():
        model.vision.place.weight.zero_()
        model.vision.place.bias.zero_()
    with pytest.raises(ValueError, match=r"rows of vision\.place, and some are zero.*use dora: false"):
        add_lora(model, Lora(rank=4, targets=("vision.all",), dora=True))
    add_lora(model, Lora(rank=4, targets=("vision.all",)))
    assert merge_lora(model.eval(), batch) < 1e-4


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
    with pytest.raises(ValueError, match=r"moved the output of vision\.layers\.0\.\S+ by .*more than 1e-03"):
        merge_lora(model, batch)


def test_a_wrong_merge_of_experts_shows_in_the_logits(processor, batch):
    model = a_mixture(processor)
    add_lora(model, Lora(rank=4, targets=("text.mlp",)))
    layer = next(module for module in model.modules() if isinstance(module, LoraLayer))
    merge = layer.merge

    def merge_and_damage(**options):
        merge(**options)
        with torch.no_grad():
            layer.get_base_layer().down_proj.mul_(1.5)

    layer.merge = merge_and_damage
    with pytest.raises(ValueError, match=r"merging the adapters moved the logits by .*more than 1e-03"):
        merge_lora(model, batch)


def test_merging_is_refused_when_logits_are_not_numbers(model, batch):
    adapted(model)
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "lora_B" in name)[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"NaNs detected in the merged weights|moved the output of .* by nan"):
        merge_lora(model, batch)


def a_mixture(processor, name="qwen3_moe"):
    model = tiny_model(processor, **FAMILIES[name].config)
    assert any(p.ndim == 3 for p in model.parameters())
    return model


@pytest.mark.parametrize("name", ["qwen3_moe", "mixtral"])
def test_experts_of_a_mixture_are_adapted_and_merged(processor, batch, tmp_path, name):
    model = a_mixture(processor, name).requires_grad_(False)
    base = logits(model, batch)
    found = lora_targets(model, ("text.mlp",))
    assert found.modules == () and len(found.parameters) == 2 * 2
    assert not any("gate.weight" in name for name in lora_targets(model, ("text.all",)).parameters)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    adapted(model, targets=("text.all", "vision.mlp"))
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert any("experts" in name for name in trainable) and all("lora_" in n for n in trainable if "experts" in n)
    with_adapters = logits(model, batch)
    assert (with_adapters - base).abs().max() > 0.1
    with adapters_off(model):
        assert torch.equal(logits(model, batch), base)
    model.train()(**batch.model_inputs()).logits.square().mean().backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if "lora_" in n)
    save_adapter(tmp_path / "adapter", model.eval(), base="somewhere")
    assert merge_lora(model, batch) < 1e-4
    after = dict(model.named_parameters())
    assert after.keys() == before.keys(), "nested wrappers are gone"
    routers = [name for name in before if ".gate.weight" in name]
    assert routers and all(torch.equal(after[name], before[name]) for name in routers)
    wrapped = PeftModel.from_pretrained(a_mixture(processor, name), str(tmp_path / "adapter")).eval()
    torch.testing.assert_close(logits(wrapped, batch), with_adapters, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("setting", "value"), [("dora", True), ("dropout", 0.1), ("quantize", "nf4")], ids=lambda v: str(v)
)
def test_what_experts_do_not_take_is_refused(processor, setting, value):
    with pytest.raises(
        ValueError, match=rf"'{setting}' does not work for text.*experts.*target the component's attention"
    ):
        add_lora(a_mixture(processor), Lora(targets=("text.mlp",), **{setting: value}))
    if setting == "quantize":
        pytest.importorskip("bitsandbytes", reason=NEEDS_QLORA)
        with pytest.raises(ValueError, match=r"in full precision, because experts in one tensor"):
            add_lora(a_mixture(processor), Lora(targets=("text.attention",), quantize="nf4"))
    else:
        add_lora(a_mixture(processor), Lora(targets=("text.attention",), **{setting: value}))


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_are_saved_as_peft_reads_them(processor, model, batch, tmp_path, dora):
    adapted(model, dora=dora, targets=(*EVERYWHERE, "projector.all"))
    save_adapter(tmp_path / "adapter", model, base="somewhere")
    assert {p.name for p in (tmp_path / "adapter").iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    wrapped = PeftModel.from_pretrained(tiny_model(processor), str(tmp_path / "adapter")).eval()
    torch.testing.assert_close(logits(wrapped, batch), logits(model, batch), atol=1e-5, rtol=1e-5)
    ours = tiny_model(processor)
    load_adapter(tmp_path / "adapter", ours)
    torch.testing.assert_close(logits(ours, batch), logits(model, batch), atol=1e-5, rtol=1e-5)
    assert merge_lora(ours, batch) < 1e-4
    with pytest.raises(ValueError, match=r"does not fit the model.*merge it into its own base"):
        load_adapter(tmp_path / "adapter", tiny_model(processor, num_hidden_layers=1))
    with pytest.raises(ValueError, match=r"another shape; merge it into its own base"):
        load_adapter(tmp_path / "adapter", tiny_model(processor, intermediate_size=64))
    with pytest.raises(FileNotFoundError, match=r"holds no adapter_config\.json; expected an adapter such as"):
        load_adapter(tmp_path, tiny_model(processor))


@pytest.mark.parametrize("dora", [False, True])
def test_frozen_layers_in_four_bits(processor, model, batch, tmp_path, dora):
    pytest.importorskip("bitsandbytes", reason=NEEDS_QLORA)
    whole = logits(model, batch)
    names = adapted(model, targets=("text.attention",), quantize="nf4", dora=dora)
    packed = {name for name, module in model.named_modules() if isinstance(module, Linear4bit)}
    assert len(packed) == 2 * 7 and all(name.startswith("text.") and "lm_head" not in name for name in packed)
    with adapters_off(model):
        quantised = logits(model, batch)
    assert 0.01 < float((quantised - whole).abs().max() / whole.abs().max()) < 1, "rounded, and not destroyed"
    with_adapters = logits(model, batch)
    assert torch.equal(with_adapters, logits(model, batch))
    model.train()
    out = model(**batch.model_inputs()).logits
    torch.testing.assert_close(out, with_adapters, atol=1e-5, rtol=1e-5)
    out.square().mean().backward()
    trained = {name: p for name, p in model.named_parameters() if "lora_" in name}
    assert len(trained) == len(names) * (3 if dora else 2) and all(p.grad is not None for p in trained.values())
    assert all(p.grad is None for name, p in model.named_parameters() if "base_layer" in name)

    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    fresh = tiny_model(processor)
    add_lora(fresh, Lora(rank=4, alpha=8, targets=("text.attention",), quantize="nf4", dora=dora))
    load_trained(fresh, weights)
    assert torch.equal(logits(fresh, batch), with_adapters)
    with pytest.raises(ValueError, match=r"do not fit the model: missing \['.*lora_A"):
        load_trained(fresh, {n: t for n, t in weights.items() if "layers.0.self_attn.q_proj.lora_A" not in n})
    name = next(n for n in weights if n.endswith("base_layer.weight"))
    with pytest.raises(ValueError, match=r"frozen 4-bit weight .* do not change that checkpoint"):
        load_trained(fresh, {**weights, name: weights[name] + 1})

    save_adapter(tmp_path / "adapter", model, "base")
    with pytest.raises(ValueError, match=r"was trained on weights in 4 bits .* use the checkpoint beside it"):
        load_adapter(tmp_path / "adapter", tiny_model(processor))
    assert merge_lora(model.eval(), batch) < 1e-4
    assert not any(isinstance(module, Linear4bit | LoraLayer) for module in model.modules())
    assert all(p.dtype == torch.float32 for p in model.parameters())
    torch.testing.assert_close(logits(model, batch), with_adapters, atol=1e-4, rtol=1e-4)
    save_checkpoint(tmp_path / "plain", model, processor)
    assert torch.equal(logits(load_checkpoint(tmp_path / "plain")[0], batch), logits(model, batch))
