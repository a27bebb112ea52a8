"""Answers of a real tiny model: drawn from its distribution, whatever they are written beside; packed as sampled."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import a_chat, a_volume, an_image, tiny_model

from medvlm.data_recipes.packing import collate
from medvlm.data_recipes.sample import Question, Sample, Turn
from medvlm.eval.batch_decoding import end_ids
from medvlm.model import MedVLMProcessor
from medvlm.model.batch import IGNORED
from medvlm.model.log_probabilities import token_log_probabilities
from medvlm.train.config import EngineConfig, ReinforcementConfig
from medvlm.train.engine import make_engine
from medvlm.train.objectives.rollouts import Prompt, Scored, empty_pack, packs_of, rendered_answer, samples_in
from medvlm.train.objectives.sampler import OwnSampler
from medvlm.train.rewards import asked_of, mark

CONFIG = ReinforcementConfig(group_size=3, max_new_tokens=5, temperature=0.7)


def prompts_of(processor) -> list[Prompt]:
    """An image, a text, a volume and two visuals: prompts of unlike lengths."""
    asked = [
        (["image"], [an_image(1)]),
        ([], []),
        (["volume"], [a_volume(2)]),
        (["image", "volume"], [an_image(3), a_volume(4)]),
    ]
    prompts = []
    for number, (kinds, visuals) in enumerate(asked):
        chat = a_chat(kinds, "Is there a nodule?" * (number + 1))
        sample = Sample(
            sample_id=f"s{number}", patient_id="p", study_id="s", source="t", licence="CC0-1.0", split="train",
            turns=(Turn(role="user", content=("Is there a nodule?",)),),
            question=Question(kind="closed", answers=("yes",), choices=("yes", "no")),
        )  # fmt: skip
        rendered = processor.render(chat, [processor.patch(v) for v in visuals], add_generation_prompt=True)
        prompts.append(Prompt(sample=sample, asked=asked_of(sample), rendered=rendered))
    return prompts


@pytest.fixture
def engine(model):
    groups = [{"params": list(model.parameters()), "name": "all", "lr": 1e-3}]
    made = make_engine(EngineConfig(device="cpu"), model, groups)
    yield made
    made.close()


def written(answers):
    return [[(answer.tokens.tolist(), answer.text, answer.cut_off) for answer in group] for group in answers]


def test_an_answer_is_a_function_of_weights_seed_step_and_sample(processor, engine):
    prompts = prompts_of(processor)
    state = torch.get_rng_state()
    sampler = OwnSampler(CONFIG, processor, seed=1)
    together = written(sampler.write(engine, prompts, step=4))
    alone = [written(OwnSampler(CONFIG, processor, 1).write(engine, [p], step=4))[0] for p in reversed(prompts)]
    assert together == alone[::-1], "it depends on what it is written beside"
    assert torch.equal(state, torch.get_rng_state()), "sampling moved the random state of the training"
    assert written(sampler.write(engine, prompts, step=5)) != together
    assert written(OwnSampler(CONFIG, processor, seed=2).write(engine, prompts, step=4)) != together
    assert sampler.write(engine, [], step=4) == []
    twice = written(sampler.write(engine, [prompts[1], prompts[1]], step=4))
    assert twice[0] == together[1] and twice[1] != twice[0], "the same sample twice is asked anew"


def test_answers_follow_the_distribution_of_the_policy(processor, engine):
    """First tokens of many answers against the probabilities of the model at the temperature (chi-squared)."""
    prompt = prompts_of(processor)[0]
    config = dataclasses.replace(CONFIG, group_size=2000, max_new_tokens=1)
    answers = OwnSampler(config, processor, seed=0).write(engine, [prompt], step=0)[0]
    pack = collate([("a", (prompt.rendered,))])
    with torch.no_grad():
        logits = engine.module(**pack.model_inputs()).logits[0, -1] / config.temperature
    logits[processor.visual_token_id] = -torch.inf
    logits[len(processor.tokenizer) :] = -torch.inf
    expected = 2000 * logits.softmax(dim=0).numpy()
    found = np.bincount([answer.tokens[0] for answer in answers], minlength=len(expected))
    often = expected >= 5
    squares = ((found - expected) ** 2 / np.where(often, expected, 1))[often].sum()
    freedom = often.sum() - 1
    assert freedom > 10 and abs(squares - freedom) < 5 * np.sqrt(2 * freedom), (squares, freedom)
    assert found[processor.visual_token_id] == 0 and not found[len(processor.tokenizer) :].any()


def scored(prompts, answers):
    marked = mark(prompts[0].asked, "yes", rewards={"answer": 1.0}, tokens=1, room=5, thinking=True)
    return [
        Scored(prompt=prompt, answer=answer, mark=marked, reward=1.0, advantage=float(place))
        for prompt, group in zip(prompts, answers, strict=True)
        for place, answer in enumerate(group)
    ]


def test_packs_hold_the_sampled_ids_and_score_as_each_answer_alone(processor, engine):
    prompts = prompts_of(processor)
    answers = OwnSampler(CONFIG, processor, seed=1).write(engine, prompts, step=0)
    ones = scored(prompts, answers)
    longest = max(len(one.prompt.rendered.tokens) for one in ones) + CONFIG.max_new_tokens
    packs = packs_of(ones, 2 * longest, 10_000)
    assert len(packs) > 1 and sum(len(pack.sample_ids) for pack in packs) == len(ones)
    found = []
    for pack in packs:
        pack.check(visual_token_id=processor.visual_token_id)
        assert len(pack.tokens) <= 2 * longest and len(pack.rows) == len(pack.sample_ids) == len(pack.advantages)
        assert len(pack.grids) <= 2 * len(set(pack.sample_ids)), "a visual is encoded once for its group"
        with torch.no_grad():
            found += token_log_probabilities(engine.module, pack)[0].tolist()
    alone = []
    for one in ones:
        rendered = rendered_answer(one.prompt.rendered, one.answer.tokens)
        assert rendered.tokens[rendered.supervised].tolist() == one.answer.tokens.tolist()
        with torch.no_grad():
            alone += token_log_probabilities(engine.module, collate([("a", (rendered,))]))[0].tolist()
    assert found == pytest.approx(alone, abs=2e-5)
    assert [a for pack in packs for a in pack.advantages.tolist()] == [0, 1, 2] * len(prompts)


def test_training_sees_an_answer_as_it_was_written(processor, engine):
    """Next to temperature 0 each sampled token is the likeliest at its place in the pack: same positions, same past."""
    prompts = prompts_of(processor)
    config = dataclasses.replace(CONFIG, temperature=1e-5)
    ones = scored(prompts, OwnSampler(config, processor, seed=1).write(engine, prompts, step=0))
    (pack,) = packs_of(ones, 10_000, 10_000)
    with torch.no_grad():
        logits = engine.module(**pack.model_inputs()).logits[0]
    logits[:, processor.visual_token_id] = -torch.inf
    logits[:, len(processor.tokenizer) :] = -torch.inf
    trained = pack.targets != IGNORED
    assert int(trained.sum()) == sum(len(one.answer.tokens) for one in ones)
    assert torch.equal(logits.argmax(dim=1)[trained], pack.targets[trained])


def test_a_pack_comes_apart_as_it_was_laid_together(processor):
    dropping = MedVLMProcessor(
        processor.tokenizer, patch_size=(2, 8, 8), max_patches={"image": 64, "volume": 144},
        max_depth={"volume": 8}, reduction={"max_tokens": {"volume": 12}},
    )  # fmt: skip
    for one in (processor, dropping):
        whole = [prompt.rendered for prompt in prompts_of(one)]
        assert one is processor or not all(v.kept.all() for r in whole for v in r.visuals), "nothing was dropped"
        again = samples_in(collate([(str(n), (r,)) for n, r in enumerate(whole)]), one)
        for before, after in zip(whole, again, strict=True):
            assert np.array_equal(before.tokens, after.tokens) and np.array_equal(before.positions, after.positions)
            for a, b in zip(before.visuals, after.visuals, strict=True):
                assert np.array_equal(a.patches, b.patches) and np.array_equal(a.kept, b.kept)
                assert a.grid == b.grid and a.axis_kind == b.axis_kind
                np.testing.assert_allclose(a.spacing, b.spacing, rtol=1e-6)


def test_a_checkpoints_own_decoding_does_not_change_the_policy(processor, engine):
    prompts = prompts_of(processor)[:2]
    before = written(OwnSampler(CONFIG, processor, 1).write(engine, prompts, step=0))
    engine.module.generation_config.repetition_penalty = 5.0
    engine.module.generation_config.top_k = 1
    assert written(OwnSampler(CONFIG, processor, 1).write(engine, prompts, step=0)) == before
    assert engine.module.generation_config.top_k == 1, "it is put back"


def test_the_end_of_a_turn_is_learnt_and_a_cut_answer_says_so(processor, engine):
    ends = end_ids(engine.module, processor)
    config = dataclasses.replace(CONFIG, group_size=64, temperature=5.0)
    answers = OwnSampler(config, processor, 0).write(engine, prompts_of(processor)[:1], step=0)[0]
    assert {answer.cut_off for answer in answers} == {True, False}
    for answer in answers:
        assert (answer.tokens[-1] in ends) is not answer.cut_off
        assert not set(answer.tokens[:-1].tolist()) & ends
        assert len(answer.tokens) == config.max_new_tokens or not answer.cut_off


def test_an_empty_pack_has_a_gradient_of_zero(processor):
    model = tiny_model(processor).train()
    pack = empty_pack(processor)
    assert pack.supervised == 0 and pack.items == 0
    values, _ = token_log_probabilities(model, pack)
    values.sum().backward()
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)
