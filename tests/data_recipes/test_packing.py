"""Packing, mixture and loader: budgets hold, nothing is lost, and the order is a pure function of (seed, step)."""

from collections import Counter

import numpy as np
import pytest
import torch
from conftest import a_chat, a_volume, an_image

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.loader import Loader, PackPlan
from medvlm.data_recipes.mixture import Mixture
from medvlm.data_recipes.packing import Length, check_fits, collate, length_of, pack
from medvlm.model.batch import IGNORED


def lengths(count=300, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(
        Length(tokens=int(t), patches=int(p), supervised=3)
        for t, p in zip(rng.integers(20, 400, count), rng.integers(0, 3, count) * 144, strict=True)
    )


def test_packs_hold_both_budgets_and_every_sample_once():
    costs = lengths()
    packs = pack(costs, range(len(costs)), 1000, 600)
    assert sorted(i for members in packs for i in members) == list(range(len(costs)))
    for members in packs:
        assert sum(costs[i].tokens for i in members) <= 1000
        assert sum(costs[i].patches for i in members) <= 600


def test_best_fit_leaves_little_empty():
    costs = tuple(Length(tokens=c.tokens, patches=0, supervised=1) for c in lengths(2000))
    packs = pack(costs, range(len(costs)), 1000, 1)
    assert sum(c.tokens for c in costs) / (1000 * len(packs)) > 0.97


def test_a_sample_over_the_budget_is_refused_with_both_numbers():
    with pytest.raises(BadSample, match=r"1200 tokens and 5 patches, over the budget of 1000 tokens and 600 patches"):
        check_fits(Length(tokens=1200, patches=5, supervised=1), 1000, 600, where="s")


def test_a_sample_that_trains_nothing_is_refused():
    with pytest.raises(BadSample, match=r"no token carries loss.*Mend"):
        check_fits(Length(tokens=5, patches=0, supervised=0), 1000, 600, where="s")


def test_mixture_shares_and_evenness():
    mixture = Mixture(sizes=(100, 300), weights=(1.0, 1.0), seed=3)
    assert mixture.shares == [200, 200]
    seen = Counter(i for number in range(6) for i in mixture.round(number))
    assert {seen[i] for i in range(100)} == {12}
    assert {seen[i] for i in range(100, 400)} == {4}
    assert mixture.round(2) == Mixture(sizes=(100, 300), weights=(1.0, 1.0), seed=3).round(2)
    assert mixture.round(2) != mixture.round(3)


def test_plan_can_start_anywhere():
    costs = lengths(120)
    plan = PackPlan(
        mixture=Mixture(sizes=(120,), weights=(1.0,), seed=0), lengths=costs, tokens_per_pack=900, patches_per_pack=900
    )
    packs = plan.packs(0)
    first = [next(packs) for _ in range(80)]
    later = plan.packs(57)
    assert [next(later) for _ in range(23)] == first[57:]


def test_targets_are_the_next_supervised_token(processor):
    turns = a_chat([], "Is there a nodule?", "left")
    rendered = processor.render(turns, [])
    batch = collate([("a", [rendered]), ("b", [rendered])])
    end = len(rendered.tokens)
    for start in (0, end):
        for i in range(end - 1):
            expected = rendered.tokens[i + 1] if rendered.supervised[i + 1] else IGNORED
            assert batch.targets[start + i] == expected
        assert batch.targets[start + end - 1] == IGNORED
    spoken = [int(t) for t in batch.targets[:end] if t != IGNORED]
    assert processor.tokenizer.decode(spoken) == "left<|im_end|>"
    assert batch.positions.tolist() == [*range(end), *range(end)]


def test_a_visual_that_both_sides_share_is_encoded_once(processor):
    shared, other = processor.patch(an_image(1)), processor.patch(an_image(2))
    chosen = processor.render(a_chat(["image"], "Side?", "left"), [shared])
    rejected = processor.render(a_chat(["image"], "Side?", "right"), [shared])
    noised = processor.render(a_chat(["image"], "Side?", "right"), [other])
    together = collate([("pair", [chosen, rejected])])
    assert len(together.grids) == 1
    assert together.placements.tolist() == [0, 0]
    assert together.sample_ids == ("pair#chosen", "pair#rejected")
    assert collate([("pair", [chosen, noised])]).placements.tolist() == [0, 1]
    assert length_of([chosen, rejected]).patches == len(shared.patches)
    assert length_of([chosen, noised]).patches == len(shared.patches) + len(other.patches)


def test_batch_check_names_both_numbers(processor):
    batch = collate([("a", [processor.render(a_chat(["volume"], "x", "y"), [processor.patch(a_volume())])])])
    batch.tokens[batch.tokens == processor.visual_token_id] = 0
    with pytest.raises(ValueError, match=r"0 placeholder tokens for 24 visual tokens of samples \('a',\)"):
        batch.check(visual_token_id=processor.visual_token_id)


class TextOnly:
    """A renderer of ready samples: the loader asks nothing else of it."""

    def __init__(self, processor, rendered):
        self.processor, self.rendered = processor, rendered

    def sides(self, sample):
        return (self.rendered[sample],)


class Named(str):
    @property
    def sample_id(self):
        return str(self)


def loader_of(processor, rank, world, packs_per_step=1):
    names = [Named(f"s{i}") for i in range(40)]
    rendered = {n: processor.render(a_chat([], f"Is there a nodule {i}?", "yes"), []) for i, n in enumerate(names)}
    plan = PackPlan(
        mixture=Mixture(sizes=(40,), weights=(1.0,), seed=0),
        lengths=tuple(length_of([rendered[n]]) for n in names),
        tokens_per_pack=100,
        patches_per_pack=1,
    )
    return Loader(
        names, plan, TextOnly(processor, rendered), packs_per_step=packs_per_step, rank=rank, world_size=world
    )


def take(loader, start, count):
    steps = loader.steps(start)
    out = [[batch.sample_ids for batch in next(steps)] for _ in range(count)]
    steps.close()
    return out


def test_any_split_over_ranks_sees_the_same_packs_in_a_step(processor):
    alone = take(loader_of(processor, 0, 1, packs_per_step=2), 0, 5)
    first, second = take(loader_of(processor, 0, 2), 0, 5), take(loader_of(processor, 1, 2), 0, 5)
    assert alone == [[*a, *b] for a, b in zip(first, second, strict=True)]


def test_resume_is_one_integer(processor):
    assert take(loader_of(processor, 0, 1), 7, 4) == take(loader_of(processor, 0, 1), 0, 11)[7:]


def test_an_error_while_reading_ahead_reaches_the_step(processor):
    loader = loader_of(processor, 0, 1)

    def fail(sample):
        raise BadSample("cannot read", where="x.png", mend="mend it")

    loader.renderer.sides = fail
    with pytest.raises(BadSample, match=r"x\.png: cannot read"):
        next(loader.steps(0))


def test_collate_of_text_only_has_no_visuals(processor):
    batch = collate([("a", [processor.render(a_chat([], "x", "y"), [])])])
    batch.check(visual_token_id=processor.visual_token_id)
    assert batch.patches.shape[0] == 0
    assert torch.equal(batch.cu_seqlens, torch.tensor([0, len(batch.tokens)], dtype=torch.int32))
