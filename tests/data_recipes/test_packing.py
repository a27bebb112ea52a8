"""Packing, mixture and loader: budgets hold, nothing is lost, and the order is a pure function of (seed, step)."""

import json
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import a_chat, a_volume, an_image
from text_loader import Named, TextOnly, loader_of

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.lengths import Lengths
from medvlm.data_recipes.mixture import Mixture
from medvlm.data_recipes.pack_plan import PackPlan, Position
from medvlm.data_recipes.packing import Length, Limits, collate, length_of, pack, sizes_of
from medvlm.data_recipes.rows import Joined, ListRows
from medvlm.model.batch import IGNORED


def lengths(count=300, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(
        Length(tokens=int(t), patches=int(p), supervised=3)
        for t, p in zip(rng.integers(20, 400, count), rng.integers(0, 3, count) * 144, strict=True)
    )


def test_packs_hold_both_budgets_and_every_sample_once():
    costs = lengths()
    packs = pack(sizes_of(costs), Limits(tokens=1000, patches=600))
    assert sorted(i for members in packs for i in members) == list(range(len(costs)))
    for members in packs:
        assert sum(costs[i].tokens for i in members) <= 1000
        assert sum(costs[i].patches for i in members) <= 600


def test_best_fit_leaves_little_empty():
    costs = tuple(Length(tokens=c.tokens, patches=0, supervised=1) for c in lengths(2000))
    packs = pack(sizes_of(costs), Limits(tokens=1000, patches=1))
    assert sum(c.tokens for c in costs) / (1000 * len(packs)) > 0.99


def test_a_sample_over_the_budget_is_refused_with_both_numbers():
    with pytest.raises(BadSample, match=r"1200 tokens and 5 patches, over the budget of 1000 tokens and 600 patches"):
        Limits(tokens=1000, patches=600).check(Length(tokens=1200, patches=5, supervised=1), where="s")


def test_a_sample_that_trains_nothing_is_refused():
    with pytest.raises(BadSample, match=r"no token carries loss.*Mend"):
        Limits(tokens=1000, patches=600).check(Length(tokens=5, patches=0, supervised=0), where="s")


def test_mixture_shares_and_evenness():
    mixture = Mixture(sizes=(100, 300), weights=(1.0, 1.0), seed=3)
    assert mixture.shares == [200, 200]
    seen = Counter(i for number in range(6) for i in mixture.round(number))
    assert {seen[i] for i in range(100)} == {12}
    assert {seen[i] for i in range(100, 400)} == {4}
    assert mixture.round(2).tolist() == Mixture(sizes=(100, 300), weights=(1.0, 1.0), seed=3).round(2).tolist()
    assert mixture.round(2).tolist() != mixture.round(3).tolist()


def test_temperature_moves_shares_between_sizes_and_weights():
    def shares(temperature, weights=(1.0, 1.0)):
        return Mixture(sizes=(100, 900), weights=weights, seed=0, temperature=temperature).shares

    assert shares(None) == [500, 500]
    assert shares(1.0) == [100, 900]
    assert shares(2.0) == [250, 750]  # 10 : 30
    assert shares(1.0, (9.0, 1.0)) == [500, 500]
    assert shares(1e6) == [500, 500]


def a_plan(costs, window=8192, **changes):
    """A plan over samples that are nothing but their number and their cost."""
    rows = Joined([ListRows([Named(i) for i in range(len(costs))])])
    settings = {"tokens_per_pack": 900, "patches_per_pack": 900, **changes}
    return PackPlan(
        mixture=Mixture(sizes=(len(costs),), weights=(1.0,), seed=0),
        lengths=Lengths(rows, lambda sample: costs[int(sample)]), window=window, **settings,
    )  # fmt: skip


@pytest.mark.parametrize("window", [8192, 50, 7])
def test_plan_can_start_anywhere(window):
    plan = a_plan(lengths(120), window)
    packs = plan.packs(Position())
    first = [next(packs) for _ in range(80)]
    later = a_plan(lengths(120), window).packs(first[56][0])
    assert [next(later) for _ in range(23)] == first[57:]
    assert [position.packs for position, _ in first] == list(range(1, 81))


@pytest.mark.parametrize("window", [8192, 50, 7])
def test_a_round_of_windows_holds_every_sample_once(window):
    plan = a_plan(lengths(120), window)
    for number in (0, 3):
        assert sorted(i for members in plan.round(number) for i in members) == list(range(120))


def test_a_position_far_away_looks_at_one_window_only():
    costs, asked = lengths(1000), []
    plan = a_plan(costs, window=100)
    plan.lengths._measure = lambda sample: asked.append(int(sample)) or costs[int(sample)]
    packs = plan.packs(Position(round=10_000, window=3, pack=2, packs=10**7))
    position, _ = next(packs)
    packs.close()
    assert (position.round, position.window, position.packs) == (10_000, 3, 10**7 + 1)
    assert len(set(asked)) <= 200, "this window, and at most the one that is packed ahead"


def test_samples_that_cannot_be_used_are_in_no_pack_and_told():
    costs = lengths(60)

    def measure(sample):
        if int(sample) % 7 == 0:
            raise BadSample("no", where=f"row {sample}", mend="mend it")
        return costs[int(sample)]

    plan = a_plan(costs, window=25)
    plan.lengths._measure = measure
    packed = [i for members in plan.round(0) for i in members]
    assert sorted(packed) == [i for i in range(60) if i % 7]
    assert sorted(plan.lengths.refused) == list(range(0, 60, 7))


def test_when_nothing_can_be_used_the_plan_stops():
    plan = a_plan(lengths(30))
    plan.lengths.refused.update({i: BadSample("no", where=f"row {i}", mend="mend it") for i in range(30)})
    with pytest.raises(BadSample, match="no sample of a whole round can be used"):
        next(plan.packs(Position()))


def test_lengths_are_measured_once_for_all_processes_and_starts(tmp_path):
    costs = lengths(200)
    rows = Joined([ListRows([Named(i) for i in range(200)])])
    asked = []

    def book(rank, settings="a", root=None):
        def measure(sample):
            asked.append((rank, int(sample)))
            return costs[int(sample)]

        return Lengths(rows, measure, folder=tmp_path, settings=settings, root=root, rank=rank, world_size=2)

    first, second = book(0), book(1)
    order = list(range(150))
    assert first.of(order) == dict(enumerate(costs[:150])) and len(asked) == 150
    assert asked[0][1] == 0 and asked[1][1] == 2, "rank 0 begins with its own part"
    assert second.of(range(200)) == dict(enumerate(costs)) and len(asked) == 200, "only what rank 0 has not measured"
    assert {rank for rank, _ in asked[150:]} == {1}
    assert book(0).of(order) == dict(enumerate(costs[:150])) and len(asked) == 200, (
        "and the next start measures nothing"
    )
    assert book(0, "b").of([3]) == {3: costs[3]} and len(asked) == 201, "other settings know nothing of it"
    (torn,) = [path for path in tmp_path.iterdir() if np.fromfile(path, np.int32)[6 * 4 + 5]]
    table = np.memmap(torn, np.int32, mode="r+", shape=(200, 6))
    table[4, 2] = 0  # a row that another process has written only a part of
    assert book(0).of([4]) == {4: costs[4]} and len(asked) == 202
    with torn.open("r+b") as file:  # cut short by a full disk or a copy that was ended
        file.truncate(100 * 24)
    assert book(0).of([99, 100]) == {99: costs[99], 100: costs[100]} and len(asked) == 204


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


def take(loader, count, state=None):
    if state is not None:
        loader.load_state_dict(state)
    steps = loader.steps()
    out = [[batch.sample_ids for batch in next(steps)] for _ in range(count)]
    steps.close()
    return out


def test_any_split_over_ranks_sees_the_same_packs_in_a_step(processor):
    alone = take(loader_of(processor, 0, 1, packs_per_step=2), 5)
    first, second = take(loader_of(processor, 0, 2), 5), take(loader_of(processor, 1, 2), 5)
    assert alone == [[*a, *b] for a, b in zip(first, second, strict=True)]


def test_ranks_that_weigh_the_same_packs_otherwise_are_told_apart(processor):
    """They would deal them otherwise: one pack to two ranks, and another to none."""
    loaders = [loader_of(processor, rank, 2) for rank in (0, 1, 1)]
    costs = loaders[2].plan.costs
    loaders[2].plan.costs = lambda packs: [-cost for cost in costs(packs)]
    taken = [take(loader, 1)[0] for loader in loaders]
    assert loaders[0].order == loaders[1].order and taken[0] != taken[1]
    assert taken[0] == taken[2] and loaders[0].order != loaders[2].order


def test_resume_is_a_few_integers(processor):
    whole = take(loader_of(processor, 0, 1), 11)
    begun = loader_of(processor, 0, 1)
    assert take(begun, 7) == whole[:7]
    state = json.loads(json.dumps(begun.state_dict()))
    assert all(type(value) is int for value in state.values())
    assert take(loader_of(processor, 0, 1), 4, state) == whole[7:]


@pytest.mark.parametrize("window", [8192, 15])
def test_two_processes_then_one_then_two_see_every_sample_once(processor, window):
    """As many packs as a round has, read by 2, then 1, then 2 ranks."""
    packs = len(list(loader_of(processor, 0, 1, window=window).plan.round(0)))
    assert packs >= 8
    seen, state = Counter(), Position().state_dict()
    part = packs // 4 * 2
    for world, steps in ((2, part // 2), (1, packs - 2 * (part // 2) - 2), (2, 1)):
        states = []
        for rank in range(world):
            loader = loader_of(processor, rank, world, window=window)
            for step in take(loader, steps, state):
                seen.update(name for pack in step for name in pack)
            states.append(loader.state_dict())
        assert states.count(states[0]) == world, "all ranks say the same position"
        state = states[0]
    assert seen == Counter(f"s{i}" for i in range(40))


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_gives_the_same_packs(processor, workers):
    alone = loader_of(processor, 0, 1, packs_per_step=2)
    many = loader_of(processor, 0, 1, packs_per_step=2, workers=workers)
    steps, others = alone.steps(), many.steps()
    for _ in range(6):
        for one, other in zip(next(steps), next(others), strict=True):
            assert one.sample_ids == other.sample_ids and torch.equal(one.tokens, other.tokens)
        assert alone.state_dict() == many.state_dict()
    steps.close(), others.close()


def test_an_unreadable_file_is_left_out_counted_and_never_replaced(processor):
    loader = loader_of(processor, 0, 1)
    whole = take(loader_of(processor, 0, 1), 8)
    victim = whole[2][0][1]

    class Damaged(TextOnly):
        def sides(self, sample, shown=None):
            if str(sample) == victim:
                raise BadSample("the pixels are damaged", where="x.png", mend="copy it again", sample_id=victim)
            return super().sides(sample)

    renderer = loader.reader.renderer
    loader.reader = replace(loader.reader, renderer=Damaged(processor, renderer.rendered))
    steps, found, left_out = loader.steps(), [], []
    for _ in range(8):
        found.append([batch.sample_ids for batch in next(steps)])
        left_out.append([bad.sample_id for bad in loader.left_out])
    steps.close()
    assert found[2] == [tuple(name for name in whole[2][0] if name != victim)]
    assert [step for n, step in enumerate(found) if n != 2] == [step for n, step in enumerate(whole) if n != 2]
    assert left_out == [[], [], [victim], [], [], [], [], []]


def test_a_pack_of_which_nothing_is_left_has_no_loss(processor):
    loader = loader_of(processor, 0, 1)

    class Damaged(TextOnly):
        def sides(self, sample, shown=None):
            raise BadSample("the pixels are damaged", where="x.png", mend="copy it again")

    reader = replace(loader.reader, renderer=Damaged(processor, {}))
    batch, failed = reader.load([0, 1])
    assert len(failed) == 2 and batch.supervised == 0 and len(batch.tokens) == 2 and len(batch.patches) == 0


def test_a_pack_larger_than_planned_is_refused(processor):
    loader = loader_of(processor, 0, 1)
    reader = replace(loader.reader, tokens_per_pack=10)
    with pytest.raises(RuntimeError, match=r"tokens and 0 patches, over the 10 and 1 that it was planned for"):
        reader.load([0, 1])


def test_an_error_while_reading_ahead_reaches_the_step(processor):
    loader = loader_of(processor, 0, 1)

    class Broken(TextOnly):
        def sides(self, sample, shown=None):
            raise ZeroDivisionError("a fault of the reader")

    loader.reader = replace(loader.reader, renderer=Broken(processor, {}))
    with pytest.raises(ZeroDivisionError, match="a fault of the reader"):
        next(loader.steps())


class Slow:
    """Costs that take their time to be found out."""

    def __init__(self, costs, first):
        self.costs, self.first, self.asked = costs, first, 0

    def __call__(self, sample):
        self.asked += 1
        if int(sample) not in self.first:
            time.sleep(0.05)
        return self.costs[int(sample)]


def test_who_leaves_does_not_wait_for_a_window_that_nobody_will_use():
    plan = a_plan(lengths(400), window=200)
    slow = Slow(lengths(400), set(plan.samples(0, 0).tolist()))
    plan.lengths._measure = slow
    began = time.monotonic()
    packs = plan.packs(Position())
    next(packs)
    packs.close()
    assert time.monotonic() - began < 2 and slow.asked < 300, "the next window alone takes 10 seconds"


def test_closing_a_loader_does_not_wait_for_the_window_that_is_measured(processor):
    loader = loader_of(processor, 0, 1, window=20)
    first, measure = set(loader.plan.samples(0, 0).tolist()), loader.plan.lengths._measure

    def slow(sample):
        if int(sample[1:]) not in first:
            time.sleep(0.5)
        return measure(sample)

    loader.plan.lengths._measure = slow
    steps = loader.steps()
    next(steps)
    began = time.monotonic()
    steps.close()
    assert time.monotonic() - began < 3, "the next window alone takes 10 seconds"


def test_collate_of_text_only_has_no_visuals(processor):
    batch = collate([("a", [processor.render(a_chat([], "x", "y"), [])])])
    batch.check(visual_token_id=processor.visual_token_id)
    assert batch.patches.shape[0] == 0
    assert torch.equal(batch.cu_seqlens, torch.tensor([0, len(batch.tokens)], dtype=torch.int32))
