"""The meter: phases, utilisation, padding and memory of a step."""

import resource
import time
from dataclasses import fields

import pytest
import torch
from conftest import tiny_model

from medvlm.data_recipes.packing import collate
from medvlm.model.batch import PackedBatch
from medvlm.model.flops import Flops, model_flops, training_flops
from medvlm.train.config import LearningRates, Lora, Source, Stage
from medvlm.train.devices import Peak
from medvlm.train.objectives.contrastive import ContrastivePack
from medvlm.train.throughput import GIB, Counted, Meter, checkpointed, counted, counter_of, peak_memory

FORWARD = {
    "vision": Flops(linear=100, attention=10), "projector": Flops(linear=20),
    "text": Flops(linear=1000, attention=50), "head": Flops(linear=300),
}  # fmt: skip
WHOLE = 110 + 20 + 1050 + 300


class Alone:
    """As much of an engine as a meter asks: its rank and device."""

    rank, world_size, device = 0, 1, torch.device("cpu")


class Second(Alone):
    rank, world_size = 1, 2


def stage(**settings) -> Stage:
    return Stage(name="s", mixture=(Source(manifest="m"),), steps=1, **settings)


@pytest.fixture
def pack(processor, conversations):
    rendered = [processor.render(turns, [processor.patch(v) for v in visuals]) for turns, visuals in conversations]
    return collate([(str(i), [r]) for i, r in enumerate(rendered)])


def test_utilisation_is_what_the_model_needs_over_what_could_have_been_done(pack):
    meter = Meter(
        tokens_per_pack=2 * len(pack.tokens), count=lambda pack: Counted(model=3e9, hardware=4e9),
        peak=Peak(flops=1e10, source="test"),
    )  # fmt: skip
    for _ in range(2):
        meter.take(pack)
    cost = meter.cost(meter.told(Alone()), seconds=3.0)
    assert cost.mfu == pytest.approx(6e9 / 3e10) and cost.hfu == pytest.approx(8e9 / 3e10)
    assert cost.padding == pytest.approx(0.5)
    # The next step begins anew.
    assert meter.cost(meter.told(Alone()), seconds=1.0).mfu == 0.0


def test_ranks_add_their_work_and_the_fullest_tells_the_memory(pack):
    meters = [
        Meter(count=lambda pack: Counted(model=1e9, hardware=1e9), peak=Peak(flops=1e10, source="")) for _ in "ab"
    ]

    class First(Second):
        rank = 0

    for meter in meters:
        meter.take(pack)
    told = [meter.told(engine) for meter, engine in zip(meters, (First(), Second()), strict=True)]
    told[1][-1] = 5 * GIB
    cost = meters[0].cost([a + b for a, b in zip(*told, strict=True)], seconds=1.0)
    assert cost.mfu == pytest.approx(2e9 / 2e10) and cost.memory_gib == 5.0


def test_phases_add_up_to_the_step_and_what_comes_between_is_apart():
    meter = Meter()
    meter.note("save", 7.0)  # after the step before
    with meter.phase("compute"):
        time.sleep(0.02)
    meter.note("ranks", 1.0)
    phases = meter.cost(meter.told(Alone()), seconds=2.0).phases
    assert phases["compute"] >= 0.02 and phases["save"] == 7.0
    assert "ranks" not in phases, "one process waits for no other"
    assert sum(v for k, v in phases.items() if k != "save") == pytest.approx(2.0)
    meter.note("ranks", 1.0)
    assert meter.cost([0.0] * 6, seconds=2.0).phases["ranks"] == 1.0


def test_operations_of_a_step_follow_what_trains_and_what_is_computed_again():
    assert counted(FORWARD, ("text",), (), ()).model == training_flops(FORWARD, ("text",)) > 2 * WHOLE
    projector = counted(FORWARD, ("projector",), (), ("vision", "text"))
    # The frozen tower before the projector is not run again; the frozen decoder behind it is.
    assert projector.hardware - projector.model == 1050
    everything = counted(FORWARD, ("vision", "projector", "text"), (), ("vision", "text"))
    assert everything.hardware - everything.model == 110 + 1050
    with_reference = counted(FORWARD, (), ("text",), (), reference=True)
    assert with_reference.model == counted(FORWARD, (), ("text",), ()).model + 1050 + 300


def test_the_counter_of_a_stage_is_that_of_its_model(processor, pack):
    model = tiny_model(processor)
    rates = LearningRates(projector=1e-3)
    count = counter_of(model, stage(learning_rate=rates))
    assert count(pack).model == training_flops(model_flops(model).of_pack(pack), ("projector",))
    assert count(pack).hardware == count(pack).model
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert set(checkpointed(model.train())) == {"vision", "text"}
    again = counter_of(model, stage(learning_rate=rates))(pack)
    assert again.hardware > again.model == count(pack).model
    pairs = stage(objective="preference", lora=Lora())
    plain = stage(lora=Lora())
    assert counter_of(model, pairs)(pack).model > counter_of(model, plain)(pack).model


def test_of_a_contrastive_pack_the_decoder_reads_the_texts_alone(processor, pack):
    model = tiny_model(processor)
    ends = torch.tensor([0, 7, 12], dtype=torch.int32)
    nothing = torch.zeros(0)
    given = {field.name: getattr(pack, field.name) for field in fields(PackedBatch)}
    pairs = ContrastivePack(
        **given, items=torch.arange(2), text_tokens=torch.zeros(12, dtype=torch.int64), text_positions=torch.arange(12),
        text_cu_seqlens=ends, losses=nothing, hits=nothing, pulls=nothing, pull_of_logits=nothing, random_state=None,
    )  # fmt: skip
    rates = LearningRates(vision=1e-3, text=1e-3, heads=1e-3)
    found = counter_of(model, stage(objective="contrastive", learning_rate=rates))(pairs)
    costs = model_flops(model)
    read = {
        "vision": costs.of_pack(pack)["vision"], "projector": Flops(), "text": costs.forward(lengths=[7, 5])["text"],
        "head": Flops(),
    }  # fmt: skip
    assert found.model == training_flops(read, ("vision", "text"))
    # The first pass of the gradient cache is one forward pass that the gradient alone would not need.
    assert found.hardware == found.model + read["vision"].total + read["text"].total


def test_memory_of_a_process_is_its_most_so_far():
    before = peak_memory(torch.device("cpu"))
    assert before == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    held = torch.ones(int(before) // 4 + 2**24)  # as much again
    assert peak_memory(torch.device("cpu")) > 1.5 * before
    del held
