"""Losses against formulas written here, against transformers, and against TRL where it is installed."""

import copy
import math

import pytest
import torch
from conftest import a_chat, a_volume, an_image
from peft.tuners.lora import LoraLayer
from torch.nn.utils.rnn import pad_sequence

from medvlm.data_recipes.packing import collate
from medvlm.model.batch import IGNORED
from medvlm.train.config import Lora, PreferenceConfig
from medvlm.train.lora import adapters_off, add_lora
from medvlm.train.objectives.preference import Preference, preference_loss
from medvlm.train.objectives.supervised import Supervised

MARGIN = torch.tensor([-30.0, -2.0, -0.1, 0.0, 0.7, 4.0, 25.0], dtype=torch.float64)


def rendered(processor, conversations):
    return [
        (str(n), [processor.render(messages, [processor.patch(v) for v in visuals])])
        for n, (messages, visuals) in enumerate(conversations)
    ]


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("number", range(5))
def test_supervised_loss_is_the_labels_loss_of_transformers(processor, model, conversations, number):
    name, sides = rendered(processor, conversations)[number]
    batch = collate([(name, sides)])
    labels = torch.full_like(batch.tokens, IGNORED)
    labels[1:] = batch.targets[:-1]
    inputs = {k: v for k, v in batch.model_inputs().items() if k != "cu_seqlens"}
    objective = Supervised()
    loss = objective(model, batch).total / objective.count(batch)
    assert loss.item() == pytest.approx(model(**inputs, labels=labels[None]).loss.item(), rel=1e-6)
    # The decoder's own loss function, given the embeddings: no code of ours computes it.
    embeds = model._embed(batch.tokens[None], tuple(inputs.get(k) for k in list(inputs)[2:]))
    assert loss.item() == pytest.approx(model.text(inputs_embeds=embeds, labels=labels[None]).loss.item(), rel=1e-6)


def test_any_split_into_packs_gives_the_same_gradient(processor, model, conversations):
    samples, objective, found = rendered(processor, conversations), Supervised(), []
    count = objective.count(collate(samples))
    for split in ([[0, 1, 2, 3, 4]], [[0], [1], [2], [3], [4]], [[4, 0], [2, 1, 3]]):
        model.train().zero_grad(set_to_none=True)
        packs = [collate([samples[i] for i in part]) for part in split]
        assert sum(objective.count(pack) for pack in packs) == count
        losses = [objective(model, pack).total / count for pack in packs]
        for loss in losses:
            loss.backward()
        found.append((sum(loss.item() for loss in losses), gradients(model)))
    for loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-6)
        for name, expected in found[0][1].items():
            scale = max(float(expected.abs().max()), 1e-3)
            torch.testing.assert_close(gradient[name], expected, atol=2e-6 * scale, rtol=0, msg=name)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


@pytest.mark.parametrize("beta", [0.1, 0.7])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("kind", ["sigmoid", "robust", "ipo", "hinge"])
def test_preference_losses_are_the_formulas_of_their_papers(kind, smoothing, beta):
    config = PreferenceConfig(loss=kind, beta=beta, label_smoothing=smoothing)
    for margin, loss in zip(MARGIN.tolist(), preference_loss(MARGIN, config).tolist(), strict=True):
        won, lost = -math.log(sigmoid(beta * margin)), -math.log(sigmoid(-beta * margin))
        expected = {
            "sigmoid": (1 - smoothing) * won + smoothing * lost,
            "robust": ((1 - smoothing) * won - smoothing * lost) / (1 - 2 * smoothing),
            "ipo": (margin - 1 / (2 * beta)) ** 2,
            "hinge": max(0.0, 1 - beta * margin),
        }[kind]
        assert loss == pytest.approx(expected, rel=1e-9, abs=1e-12)


def pair_of(processor, rejected_visual=None):
    shown = processor.patch(an_image(1))
    other = shown if rejected_visual is None else processor.patch(rejected_visual)
    kind = "image" if rejected_visual is None else "volume"
    return [
        processor.render(a_chat(["image"], "Which side?", "left"), [shown]),
        processor.render(a_chat([kind], "Which side?", "right lower zone"), [other]),
    ]


def answer_log_probability(model, side) -> float:
    """By a loop over tokens of one unpacked conversation: what the packed objective must equal."""
    batch = collate([("one", [side])])
    inputs = {k: v for k, v in batch.model_inputs().items() if k != "cu_seqlens"}
    with torch.no_grad():
        logits = model(**inputs).logits[0].double()
    total = 0.0
    for place, token in enumerate(side.tokens):
        if side.supervised[place]:
            total += float(logits[place - 1].log_softmax(-1)[token])
    return total


@pytest.mark.parametrize("kind", ["sigmoid", "robust", "ipo", "hinge"])
def test_preference_losses_are_those_of_trl(processor, model, tmp_path, kind):
    """A real DPOTrainer on the decoder and the same tokens; seen equal with TRL 1.16."""
    trl = pytest.importorskip("trl", reason="trl is not installed: pip install trl")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install datasets")
    answers = [("yes", "There is a 25 mm nodule."), ("left, moderate", "no"), ("right lower zone", "left")]
    pairs = [
        (str(n), [processor.render(a_chat([], "Is there a nodule?", text), []) for text in both])
        for n, both in enumerate(answers)
    ]
    reference = copy.deepcopy(model.text).eval()
    torch.manual_seed(2)
    add_lora(model, Lora(rank=4, alpha=8, targets=("text.mlp",)))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    smoothing = 0.2 if kind == "robust" else 0.0
    config = PreferenceConfig(loss=kind, beta=0.3, label_smoothing=smoothing)
    ours = Preference(config, lambda: adapters_off(model))(model, collate(pairs)).total / len(pairs)

    merged = copy.deepcopy(model.text).eval()
    for module in list(merged.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LoraLayer):
                child.merge(safe_merge=True)
                setattr(module, name, child.get_base_layer())
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path), loss_type=[kind], beta=0.3, label_smoothing=smoothing, report_to=[], use_cpu=True,
        bf16=False, gradient_checkpointing=False, save_strategy="no",
    )  # fmt: skip
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    trainer = trl.DPOTrainer(
        model=merged, ref_model=reference, args=arguments, processing_class=processor.tokenizer,
        train_dataset=datasets.Dataset.from_list([row]),
    )  # fmt: skip
    sides = [pair[1][side] for side in (0, 1) for pair in pairs]
    tokens = [torch.from_numpy(side.tokens) for side in sides]
    inputs = {
        "input_ids": pad_sequence(tokens, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(t) for t in tokens], batch_first=True),
        "completion_mask": pad_sequence([torch.from_numpy(s.supervised).long() for s in sides], batch_first=True),
    }
    theirs = trainer.compute_loss(trainer.model.eval(), inputs)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.parametrize("other", [None, a_volume(3)], ids=["same image", "other visual"])
def test_preference_equals_unpacked_log_probabilities(processor, model, other):
    torch.manual_seed(5)
    reference = {n: [answer_log_probability(model, s) for s in pair_of(processor, other)] for n in "ab"}
    add_lora(model, Lora(rank=4, alpha=8))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    pairs = [("a", pair_of(processor, other)), ("b", pair_of(processor, other)[::-1])]
    config = PreferenceConfig(beta=0.3, supervised_weight=0.5)
    objective, batch = Preference(config, lambda: adapters_off(model)), collate(pairs)
    assert objective.count(batch) == 2
    result = objective(model, batch)
    expected = right = 0.0
    for name, sides in pairs:
        known = reference[name] if name == "a" else reference[name][::-1]
        policy = [answer_log_probability(model, side) for side in sides]
        margin = (policy[0] - known[0]) - (policy[1] - known[1])
        assert abs(margin) > 0.05, "the adapters must move the model for this to prove anything"
        expected += -math.log(sigmoid(0.3 * margin)) - 0.5 * policy[0] / sum(sides[0].supervised)
        right += margin > 0
    assert result.total.item() == pytest.approx(expected, rel=1e-5)
    assert result.metrics["reward_accuracy"] == right


def test_ipo_averages_over_the_tokens_of_each_answer(processor, model):
    sides = pair_of(processor)
    known = [answer_log_probability(model, side) for side in sides]
    add_lora(model, Lora(rank=4, alpha=8))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    gain = [
        (answer_log_probability(model, side) - before) / int(side.supervised.sum())
        for side, before in zip(sides, known, strict=True)
    ]
    assert int(sides[0].supervised.sum()) != int(sides[1].supervised.sum())
    objective = Preference(PreferenceConfig(loss="ipo", beta=0.3), lambda: adapters_off(model))
    loss = float(objective(model, collate([("a", sides)])).total)
    assert loss == pytest.approx((gain[0] - gain[1] - 1 / 0.6) ** 2, rel=1e-5)


def test_a_visual_that_chosen_and_rejected_share_is_encoded_once(processor, model):
    add_lora(model, Lora(rank=2))
    seen = []
    model.vision.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    batch = collate([("a", pair_of(processor))])
    Preference(PreferenceConfig(), lambda: adapters_off(model))(model, batch)
    once = len(processor.patch(an_image(1)).patches)
    assert seen == [once, once], "once for the reference and once for the policy"


def test_training_moves_the_policy_and_not_the_reference(processor, model):
    torch.manual_seed(1)
    add_lora(model.train().requires_grad_(False), Lora(rank=4))
    batch = collate([("a", pair_of(processor)), ("b", pair_of(processor, a_volume(3)))])
    objective = Preference(PreferenceConfig(beta=0.5), lambda: adapters_off(model))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)

    def logits():
        with torch.no_grad():
            policy = model(**batch.model_inputs()).logits
            with adapters_off(model):
                return policy, model(**batch.model_inputs()).logits

    policy, reference = logits()
    losses = []
    for _ in range(12):
        loss = objective(model, batch).total
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(2 * math.log(2), rel=1e-6), "adapters start as nothing: margins of zero"
    assert losses[-1] < 0.9 * losses[0]
    moved, same = logits()
    assert torch.equal(same, reference)
    assert (moved - policy).abs().max() > 0.1
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in name for name in trained), "also after the adapters were off and on"


def test_adapters_come_back_when_the_reference_fails(model):
    add_lora(model, Lora(rank=2))
    with pytest.raises(RuntimeError, match="planted"), adapters_off(model):
        raise RuntimeError("planted")
    assert all(p.requires_grad for name, p in model.named_parameters() if "lora_" in name)


def test_a_preference_without_adapters_is_refused(processor, model):
    with pytest.raises(ValueError, match="no adapters; a preference stage needs 'lora'"):
        Preference(PreferenceConfig(), lambda: adapters_off(model))(model, collate([("a", pair_of(processor))]))
