"""Preference optimisation of packs: unpacked log-probabilities, shared visuals, step-wide quantities, TRL."""

import copy
import hashlib
import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import a_chat, a_volume, an_image
from external_families import make_checkpoint
from peft.tuners.lora import LoraLayer
from torch.nn.utils.rnn import pad_sequence

from medvlm.data_recipes.packing import collate
from medvlm.model.batch import IGNORED
from medvlm.model.loading import load_checkpoint
from medvlm.model.processing import Rendered
from medvlm.train.assemble import set_trainable
from medvlm.train.config import LearningRates, Lora, PreferenceConfig, Source, Stage
from medvlm.train.lora import adapters_off, add_lora
from medvlm.train.objectives.preference import Preference, encodes_the_same
from medvlm.train.objectives.unrelated_answers import with_unrelated_answers

WHY = "bash scripts/test_extras.sh runs these tests"


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


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
    trl = pytest.importorskip("trl", reason=WHY)
    datasets = pytest.importorskip("datasets", reason=WHY)
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
    ours = Preference(config, model)(model, collate(pairs)).total / len(pairs)

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
    objective, batch = Preference(config, model), collate(pairs)
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
    objective = Preference(PreferenceConfig(loss="ipo", beta=0.3), model)
    loss = float(objective(model, collate([("a", sides)])).total.detach())
    assert loss == pytest.approx((gain[0] - gain[1] - 1 / 0.6) ** 2, rel=1e-5)


def trained(model, loss="sigmoid", targets=("text.attention", "text.mlp"), **rates):
    """The model as a stage makes it, its adapters moved; and the settings of the stage."""
    torch.manual_seed(7)
    config = PreferenceConfig(loss=loss, beta=0.3, supervised_weight=0.1)
    lora = None if rates else Lora(rank=4, alpha=8, targets=targets)
    stage = Stage(
        name="s", objective="preference", mixture=(Source(manifest="none"),), steps=1, lora=lora, preference=config,
        learning_rate=LearningRates(**rates),
    )  # fmt: skip
    set_trainable(model.train(), stage)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return config


def encoder_calls(model) -> list[int]:
    """Patches of each call of the vision encoder from now on."""
    seen: list[int] = []
    encoder = model.vision if hasattr(model, "vision") else model.model.model.visual
    encoder.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    return seen


def alone(model):
    """An engine of one process, as far as an objective sees it."""
    return SimpleNamespace(model=model, device=torch.device("cpu"), sum_over_ranks=lambda values: values)


def step_of(objective, model, packs):
    """(loss, metrics, gradients) of one optimizer step over ``packs``, as the loop takes it."""
    model.zero_grad(set_to_none=True)
    packs = objective.prepare(alone(model), packs)
    count = sum(objective.count(pack) for pack in packs)
    total, metrics = 0.0, Counter()
    for pack in packs:
        loss = objective(model, pack)
        (loss.total / count).backward()
        total += float(loss.total.detach()) / count
        metrics.update(loss.metrics)
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return total, {name: value / count for name, value in metrics.items()}, found


def assert_same_step(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=2e-6)
    assert found[1] == pytest.approx(expected[1], rel=2e-5, abs=1e-6)
    assert found[2].keys() == expected[2].keys() and expected[2]
    for name, gradient in expected[2].items():
        scale = max(float(gradient.abs().max()), 1e-3)
        torch.testing.assert_close(found[2][name], gradient, atol=5e-6 * scale, rtol=0, msg=name)


@pytest.mark.parametrize(
    ("loss", "targets", "calls"),
    [
        ("sigmoid", ("text.mlp",), 1),
        ({"kto": 1.0, "bco": 1.0}, ("text.mlp", "projector.all"), 1),
        ("sigmoid", ("text.mlp", "vision.mlp"), 2),
        ({"bco": 1.0}, ("vision.mlp",), 3),
        ("simpo", ("text.mlp", "vision.mlp"), 1),
    ],
)
def test_a_visual_is_encoded_once_for_all_that_is_asked_about_it(processor, model, loss, targets, calls):
    objective = Preference(trained(model, loss, targets), model)
    seen = encoder_calls(model)
    packs = [collate([("a", pair_of(processor))]), collate([("b", pair_of(processor))])]
    step_of(objective, model, packs)
    once = len(processor.patch(an_image(1)).patches)
    assert seen == [once] * calls * len(packs), "with adapters in the encoder, each pass needs its own"


@pytest.mark.parametrize("other", [None, a_volume(3)], ids=["same image", "other visual"])
@pytest.mark.parametrize("loss", ["sigmoid", {"kto": 1.0, "bco": 0.5}], ids=str)
def test_shared_features_change_no_number(processor, model, loss, other):
    text = [processor.render(a_chat([], "Is there a mass?", answer), []) for answer in ("yes", "no, none")]
    objective = Preference(trained(model, loss, ("text.mlp", "projector.all")), model)
    packs = [
        collate([("a", pair_of(processor, other)), ("b", pair_of(processor, other)[::-1])]),
        collate([("c", text)]),
        collate([("d", pair_of(processor))]),
    ]
    assert objective.shares
    sharing = step_of(objective, model, packs)
    objective.shares = False
    assert_same_step(sharing, step_of(objective, model, packs))


def test_a_pack_of_text_runs_the_encoder_as_often_as_one_with_visuals(processor, model):
    """ZeRO-3 gathers the weights of what runs: ranks that run other parts, or in another order, wait for ever."""
    objective = Preference(trained(model), model)
    order: list[str] = []
    for name, part in (("vision", model.vision), ("projector", model.projector), ("text", model.text.model)):
        part.register_forward_pre_hook(lambda *_, name=name: order.append(name))
    text = [processor.render(a_chat([], "Is there a mass?", answer), []) for answer in ("yes", "no, none")]
    found = []
    for sides in (text, pair_of(processor)):
        order.clear()
        objective(model, collate([("a", sides)]))
        found.append(list(order))
    assert found[0] == found[1] == ["vision", "projector", "text", "projector", "text"]


def test_an_existing_model_shares_what_it_made_of_a_visual(tmp_path):
    make_checkpoint("qwen3_vl", tmp_path / "start")  # the family with features for several layers of the decoder
    model, processor = load_checkpoint(tmp_path / "start")
    objective = Preference(trained(model), model)
    assert objective.shares and not encodes_the_same(trained_other(model))
    seen = encoder_calls(model)
    shown = processor.patch(an_image(1))
    sides = [processor.render(a_chat(["image"], "Which side?", answer), [shown]) for answer in ("left", "right zone")]
    text = [processor.render(a_chat([], "Is there a mass?", answer), []) for answer in ("yes", "no, none")]
    packs = [collate([("a", sides)]), collate([("b", text)])]
    sharing = step_of(objective, model, packs)
    assert len(seen) == len(packs)
    objective.shares = False
    assert_same_step(sharing, step_of(objective, model, packs))
    assert len(seen) == 3 * len(packs)


def trained_other(model):
    """The same model with something of its projector in training."""
    other = copy.deepcopy(model)
    for name, parameter in other.named_parameters():
        if other.component_of(name) == "projector":
            parameter.requires_grad_(True)
    return other


ANSWERS = [("left", "right lower zone"), ("There is a 25 mm nodule.", "no"), ("moderate", "mild, right"), ("no", "yes")]


def four_pairs(processor):
    """Two pairs show an image, one a volume, one nothing."""
    visuals = [processor.patch(an_image(1)), processor.patch(a_volume(3)), processor.patch(an_image(2)), None]
    kinds = ["image", "volume", "image", None]
    return [
        (
            f"pair-{number}",
            [
                processor.render(a_chat([kind] if kind else [], "What is there?", text), [visual] if kind else [])
                for text in both
            ],
        )
        for number, (both, visual, kind) in enumerate(zip(ANSWERS, visuals, kinds, strict=True))
    ]


@pytest.mark.parametrize(
    "loss", ["sigmoid", "ipo", {"kto": 1.0}, {"bco": 1.0}, {"kto": 0.5, "bco": 1.0, "sigmoid": 0.8}, "orpo", "simpo"],
    ids=str,
)  # fmt: skip
def test_any_split_of_pairs_into_packs_gives_the_same_gradient(processor, model, loss):
    free = loss in ("orpo", "simpo")
    rates = {"vision": 1e-4, "projector": 1e-4, "text": 1e-4} if free else {}
    objective = Preference(trained(model, loss, **rates), model)
    pairs = four_pairs(processor)
    splits = ([[0, 1, 2, 3]], [[0], [1], [2], [3]], [[3, 1], [0, 2]])
    found = [step_of(objective, model, [collate([pairs[n] for n in part]) for part in split]) for split in splits]
    for other in found[1:]:
        assert_same_step(other, found[0])
    if "kto" in loss:
        assert found[0][1]["divergence"] > 0.01, "a reference point of zero would not show a coupling"
    if "bco" in loss:
        assert abs(found[0][1]["reward_shift"]) > 0.001


def test_the_reference_point_of_kto_comes_from_answers_to_other_prompts(processor, model):
    objective = Preference(trained(model, "kto"), model)
    pairs = four_pairs(processor)
    packs = [collate(pairs[:3]), collate(pairs[3:])]
    others = with_unrelated_answers(packs)
    order = sorted(range(4), key=lambda n: hashlib.sha256(f"pair-{n}".encode()).digest())
    gains = []
    for place, taker in enumerate(order):
        giver = order[place - 1]
        sides = pairs[taker][1]
        kind = ["image", "volume", "image", None][taker]
        for side in range(2):
            # The same conversation, rendered anew with the other answer.
            text = a_chat([kind] if kind else [], "What is there?", ANSWERS[giver][side])
            row = processor.render(text, list(sides[side].visuals))
            policy = answer_log_probability(model, row)
            with adapters_off(model):
                gains.append(policy - answer_log_probability(model, row))
    objective.prepare(alone(model), packs)
    expected = sum(gains) / len(gains)
    assert expected > 0.01
    assert objective.step.divergence == pytest.approx(expected, rel=1e-4)
    for pack, other in zip(packs, others, strict=True):
        for side in range(len(pack.sample_ids)):
            start, begin = int(pack.cu_seqlens[side]), int(other.cu_seqlens[side])
            length = int((other.targets[begin : int(other.cu_seqlens[side + 1])] != IGNORED).nonzero()[0])
            assert torch.equal(pack.tokens[start : start + length], other.tokens[begin : begin + length])
            rises = other.positions[begin : int(other.cu_seqlens[side + 1])].diff()
            assert (rises >= 1).all() and int(other.positions[begin]) == 0


def test_one_pair_alone_has_no_reference_point(processor, model):
    objective = Preference(trained(model, "kto"), model)
    objective.prepare(alone(model), [collate([("a", pair_of(processor))])])
    assert objective.step.divergence == 0.0


def test_what_could_not_be_read_counts_nowhere(processor, model):
    """A pack of which nothing was left: its rank takes part in every pass."""
    nothing = Rendered(
        tokens=np.array([0], np.int64), supervised=np.zeros(1, bool), positions=np.zeros(1, np.int64), visuals=()
    )
    empty = collate([("nothing could be read", [nothing] * 2)])
    objective = Preference(trained(model, {"kto": 1.0, "bco": 1.0}), model)
    pairs = four_pairs(processor)
    whole = step_of(objective, model, [collate(pairs[:2]), collate(pairs[2:])])
    with_empty = step_of(objective, model, [collate(pairs[:2]), empty, collate(pairs[2:])])
    assert_same_step(with_empty, whole)
    assert objective.count(empty) == 0


def test_metrics_are_those_of_the_pairs(processor, model):
    objective = Preference(trained(model), model)
    pairs = four_pairs(processor)
    metrics = step_of(objective, model, [collate(pairs)])[1]
    rewards = []
    for _, sides in pairs:
        policy = [answer_log_probability(model, side) for side in sides]
        with adapters_off(model):
            rewards.append([0.3 * (p - answer_log_probability(model, s)) for p, s in zip(policy, sides, strict=True)])
    chosen, rejected = (sum(pair[side] for pair in rewards) / 4 for side in range(2))
    assert metrics["chosen_reward"] == pytest.approx(chosen, rel=1e-4)
    assert metrics["rejected_reward"] == pytest.approx(rejected, rel=1e-4)
    assert metrics["margin"] == pytest.approx(chosen - rejected, rel=1e-4)
    assert metrics["reward_accuracy"] == sum(pair[0] > pair[1] for pair in rewards) / 4
    assert metrics["chosen_tokens"] == sum(int(sides[0].supervised.sum()) for _, sides in pairs) / 4
    assert metrics["rejected_tokens"] == sum(int(sides[1].supervised.sum()) for _, sides in pairs) / 4


@pytest.mark.parametrize("loss", ["orpo", "simpo"])
def test_losses_without_a_reference_train_the_whole_model(processor, model, loss):
    config = trained(model, loss, vision=1e-3, projector=1e-3, text=1e-3)
    objective, pack = Preference(config, model), collate(four_pairs(processor))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss, _, gradients = step_of(objective, model, [pack])
        assert len(gradients) == len(list(model.parameters()))
        losses.append(loss)
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


def test_training_moves_the_policy_and_not_the_reference(processor, model):
    torch.manual_seed(1)
    add_lora(model.train().requires_grad_(False), Lora(rank=4))
    batch = collate([("a", pair_of(processor)), ("b", pair_of(processor, a_volume(3)))])
    objective = Preference(PreferenceConfig(beta=0.5), model)
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
        Preference(PreferenceConfig(), model)(model, collate([("a", pair_of(processor))]))
