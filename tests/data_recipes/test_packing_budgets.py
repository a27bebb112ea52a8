"""Packs under three budgets: what they hold, what they leave empty, how alike they are, and who gets which."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from conftest import tiny_model
from text_loader import Named, loader_of

from medvlm.data_recipes.balance import deal
from medvlm.data_recipes.cost import Cost, cost_of_model
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.lengths import Lengths
from medvlm.data_recipes.pack_plan import VERSION, Position
from medvlm.data_recipes.packing import Length, Limits, pack, sizes_of, sums
from medvlm.data_recipes.rows import Joined, ListRows
from medvlm.model.flops import model_flops, training_flops

ATTENTION = Cost(token=1.0, token_squared=1e-4, patch=0.3, patch_squared=2e-5)


def clinic(count, seed=0, volumes=0.1):
    """Short questions on an image, chats on an image, text, and volumes: sizes as columns."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(4, count, p=[0.5 * (1 - volumes), 0.33 * (1 - volumes), 0.17 * (1 - volumes), volumes])
    image = rng.integers(6, 15, count) * rng.integers(6, 15, count)
    volume = rng.integers(4, 17, count) * rng.integers(6, 11, count) * rng.integers(6, 11, count)
    visual = np.select([kind < 2, kind == 3], [image, volume], 0)
    words = np.select(
        [kind == 0, kind == 3], [rng.integers(25, 90, count), rng.lognormal(5.3, 0.5, count).clip(40, 1200)],
        rng.lognormal(5.9, 0.6, count).clip(50, 3500),
    ).astype(np.int64)  # fmt: skip
    return {
        "tokens": words + visual, "patches": visual * 4, "supervised": words // 3, "visual_tokens": visual,
        "visual_tokens_made": visual, "patches_squared": (visual * 4) ** 2,
    }  # fmt: skip


LIMITS = [
    Limits(tokens=4096, patches=8192, weights=ATTENTION),
    Limits(tokens=4096, patches=8192, weights=ATTENTION, cost=9000.0),
    Limits(tokens=4096, patches=6600, weights=ATTENTION),
    Limits(tokens=10**6, patches=8192),
    Limits(tokens=4096, patches=10**6),
]


@pytest.mark.parametrize("limits", LIMITS, ids=["both", "and cost", "few patches", "patches alone", "tokens alone"])
@pytest.mark.parametrize("volumes", [0.0, 0.1, 0.6])
def test_no_pack_is_over_a_budget_and_no_sample_is_lost(limits, volumes):
    for seed in range(3):
        sizes = clinic(700, seed, volumes)
        packs = pack(sizes, limits)
        assert sorted(place for members in packs for place in members) == list(range(700))
        for members in packs:
            assert sizes["tokens"][members].sum() <= limits.tokens
            assert sizes["patches"][members].sum() <= limits.patches
            assert limits.cost is None or limits.weights.of(sizes)[members].sum() <= limits.cost * (1 + 1e-9)
        assert packs == pack(sizes, limits)


@pytest.mark.parametrize("sizes", [[], [7], [0, 0, 3], [4] * 9, [10] * 3])
def test_odd_sets_are_packed_too(sizes):
    costs = sizes_of([Length(tokens=size, patches=0, supervised=1) for size in sizes])
    packs = pack(costs, Limits(tokens=10, patches=5))
    assert sorted(place for members in packs for place in members) == list(range(len(sizes)))
    assert len(packs) == {0: 0, 1: 1, 3: 1, 9: 5}[len(sizes)] or (sizes == [10] * 3 and len(packs) == 3)


def test_a_sample_that_fills_a_budget_to_the_last_is_found_whatever_numbers_round_to():
    """(tokens / patches) * patches may round to less than tokens: the sample was not found, and packing never ended."""
    program = (
        "import sys\n"
        "from medvlm.data_recipes.packing import Length, Limits, pack, sizes_of\n"
        "from medvlm.data_recipes.cost import Cost\n"
        "text = [Length(tokens=4000, patches=0, supervised=1)] * 10\n"
        "for budget in (300, 1000):\n"
        "    limits = Limits(tokens=4096, patches=budget, weights=Cost(token=1.0, patch=10.0))\n"
        "    for tokens in range(1, 300):\n"
        "        image = Length(tokens=tokens, patches=budget, supervised=1)\n"
        "        packs = pack(sizes_of([*text, image]), limits)\n"
        "        assert sorted(place for members in packs for place in members) == list(range(11))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def waste(limits, volumes=0.1, window=4096, seeds=6):
    empty = total = 0.0
    for seed in range(seeds):
        sizes = clinic(window, seed, volumes)
        packs = len(pack(sizes, limits))
        bound = max(sizes["tokens"].sum() / limits.tokens, sizes["patches"].sum() / limits.patches)
        empty, total = empty + packs - bound, total + packs
    return empty / total


def test_a_window_of_4096_leaves_less_than_3_in_1000_empty_under_both_budgets():
    assert waste(LIMITS[0]) <= 0.003
    assert waste(Limits(tokens=8192, patches=16384, weights=ATTENTION)) <= 0.004  # half a pack of 230 is 0.0022


def test_where_patches_are_short_they_are_what_is_filled():
    limits = Limits(tokens=4096, patches=8192, weights=ATTENTION)
    sizes = clinic(4096, 0, 0.6)
    assert sizes["patches"].sum() / 8192 > 1.1 * sizes["tokens"].sum() / 4096
    assert waste(limits, volumes=0.6, seeds=3) <= 0.012


def test_packs_cost_about_the_same_and_neighbours_more_so():
    sizes = clinic(4096, 1)
    packs = pack(sizes, LIMITS[0])
    costs = sums(ATTENTION.of(sizes), packs)
    assert costs.std() / costs.mean() < 0.08
    plain = pack(sizes, Limits(tokens=4096, patches=8192))  # a cost of tokens alone
    unaware = sums(ATTENTION.of(sizes), plain)
    assert costs.std() / costs.mean() < 0.7 * unaware.std() / unaware.mean()
    circle = np.append(costs, costs[0])
    assert np.abs(np.diff(circle)).mean() < 0.1 * np.abs(np.diff(np.random.default_rng(0).permutation(costs))).mean()


@pytest.mark.parametrize(("ranks", "each"), [(2, 1), (8, 1), (8, 4), (16, 1)])
def test_ranks_get_like_costs(ranks, each):
    sizes = clinic(4096, 2)
    costs = sums(ATTENTION.of(sizes), pack(sizes, LIMITS[0])).tolist()
    by_cost, in_turn = [], []
    for start in range(0, len(costs) - ranks * each + 1, ranks * each):
        step = costs[start : start + ranks * each]
        hands = [sum(step[number] for number in hand) for hand in deal(step, ranks)]
        by_cost.append(max(hands) / np.mean(hands))
        in_turn.append(max(sum(step[rank::ranks]) for rank in range(ranks)) / np.mean(hands))
    assert np.mean(by_cost) <= 1.03
    assert np.mean(by_cost) <= np.mean(in_turn) + 1e-9


def test_dealing_gives_all_ranks_as_many_packs_and_the_costliest_first():
    rng = np.random.default_rng(0)
    for _ in range(50):
        costs = rng.lognormal(0, 1, 24).tolist()
        hands = deal(costs, 4)
        assert sorted(number for hand in hands for number in hand) == list(range(24))
        assert {len(hand) for hand in hands} == {6}
        assert all(costs[a] >= costs[b] for hand in hands for a, b in pairwise(hand))
        totals = [sum(costs[number] for number in hand) for hand in hands]
        assert max(totals) <= sum(totals) / 4 + max(costs)
    with pytest.raises(ValueError, match="5 packs cannot be dealt evenly to 2 ranks"):
        deal([1.0] * 5, 2)


def test_a_loader_deals_by_cost(processor):
    """One sample in a pack costs a hundred times the others: whoever gets it gets the cheapest others."""
    ranks = [loader_of(processor, rank, 2, packs_per_step=2) for rank in range(2)]
    for loader in ranks:
        loader.plan.costs = lambda packs: [100.0 if 3 in members else len(members) for members in packs]
    steps = [loader.steps() for loader in ranks]
    met = 0
    for _ in range(8):
        hands = [[[int(name[1:]) for name in batch.sample_ids] for batch in next(step)] for step in steps]
        packs = [members for hand in hands for members in hand]
        costs = ranks[0].plan.costs(packs)
        if max(costs) == 100.0:
            met += 1
            own = costs[:2] if 100.0 in costs[:2] else costs[2:]
            assert own[0] == 100.0 and own[1] == min(costs)
    assert met
    for step in steps:
        step.close()


def test_a_state_of_another_way_of_planning_is_refused(processor):
    loader = loader_of(processor, 0, 1)
    state = loader.state_dict()
    assert state["version"] == VERSION
    loader.load_state_dict(state)
    old = {name: value for name, value in state.items() if name != "version"}
    with pytest.raises(
        ValueError, match=r"packs of plan version 1, and this release of medvlm plans them in another way"
    ):
        loader.load_state_dict(old)
    assert Position.from_state(Position(round=2, window=1, pack=3, packs=9).state_dict()).packs == 9


def test_a_sample_that_costs_too_much_is_refused_with_its_cost():
    weights = Cost(token=1.0, token_squared=0.01)
    limits = Limits(tokens=1000, patches=10, cost=3000.0, weights=weights)
    rows = Joined([ListRows([Named(i) for i in range(3)])])
    lengths = Lengths(
        rows, lambda name: Length(tokens=(100, 600, 500)[int(name)], patches=0, supervised=1), limits=limits
    )
    assert sorted(lengths.of(range(3))) == [0, 2]
    assert "a cost of 4200 (600 tokens and 0 patches), over the budget of 3000" in lengths.refused[1].reason
    with pytest.raises(BadSample, match=r"raise data\.cost_per_pack or remove it"):
        limits.check(Length(tokens=600, patches=0, supervised=1), where="s")
    with pytest.raises(BadSample, match="sample number 1"):
        pack(sizes_of([Length(tokens=9, patches=0, supervised=1), Length(tokens=600, patches=0, supervised=1)]), limits)


@pytest.mark.parametrize("weights", [{"token": -1.0}, {"token": 0.0}, {"patch": float("inf")}, {"patch": float("nan")}])
def test_weights_that_mean_nothing_are_refused(weights):
    with pytest.raises(ValueError, match="use numbers of at least 0, not all of them 0"):
        Cost(**weights)


@pytest.mark.parametrize(
    ("trained", "adapted"),
    [(("vision", "projector", "text"), ()), (("projector",), ()), ((), ("text",)), (("text",), ())],
)
def test_costs_are_the_flops_of_a_stage(processor, trained, adapted):
    """A sample of one visual: its cost is the FLOPs of both passes, in units of a token's."""
    flops = model_flops(tiny_model(processor))
    cost = cost_of_model(flops, trained, adapted)
    grid, tokens, supervised = (2, 8, 10), 90, 7
    patches = 160
    forward = flops.forward(lengths=[tokens], grids=[grid], visual_tokens=patches // 4, logits=supervised)
    whole = training_flops(forward, trained, adapted)
    unit = training_flops(flops.forward(lengths=[1]), trained, adapted)
    sizes = sizes_of([Length(tokens=tokens, patches=patches, supervised=supervised, patches_squared=patches**2)])
    assert cost.of(sizes)[0] == pytest.approx(whole / unit, rel=0.01)
